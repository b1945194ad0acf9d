-- What was counted was another amount, in the windows that still are the ones it was counted in; and this was spent.
-- KEYS: windows (hash), budget (hash). ARGV: spent; then for each window: name, when it began, by how much.
local spent = tonumber(ARGV[1])
if spent > 0 then
  local day = math.floor(redis.call('TIME')[1] / 86400)
  if tonumber(redis.call('HGET', KEYS[2], 'day')) ~= day then
    redis.call('HSET', KEYS[2], 'day', day, 'spent', 0)
    redis.call('EXPIRE', KEYS[2], 172800)
  end
  redis.call('HINCRBY', KEYS[2], 'spent', ARGV[1])
end
for i = 2, #ARGV, 3 do
  local name = ARGV[i]
  if redis.call('HGET', KEYS[1], name .. ':begun') == ARGV[i + 1] then
    if redis.call('HINCRBY', KEYS[1], name .. ':used', ARGV[i + 2]) < 0 then
      redis.call('HSET', KEYS[1], name .. ':used', 0)
    end
  end
end
return 1
