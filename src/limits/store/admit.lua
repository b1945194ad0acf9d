-- Decides all limits of one subject at once: everything is counted, or nothing.
-- KEYS: windows (hash), leases (sorted set by expiry), budget (hash); one hash tag, so one slot.
-- ARGV: whether to count; lease id, lease ms, bound on leases or -1; bound on spending or -1;
--       then for each window: name, period in ms, limit, amount.
-- Gives: admitted, now, leases, spent, then for each window: when it began (0: not yet), used.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local counts, lease, lease_ms = ARGV[1] == '1', ARGV[2], tonumber(ARGV[3])
local most, budget = tonumber(ARGV[4]), tonumber(ARGV[5])
local admitted = 1

local running = 0
if most >= 0 then
  if counts then redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now) end
  running = redis.call('ZCOUNT', KEYS[2], '(' .. string.format('%.0f', now), '+inf')
  if running >= most then admitted = 0 end
end

local spent = 0
if budget >= 0 then
  local today = redis.call('HMGET', KEYS[3], 'day', 'spent')
  if tonumber(today[1]) == math.floor(now / 86400000) then spent = tonumber(today[2]) end
  if spent >= budget then admitted = 0 end
end

local windows = {}
for i = 6, #ARGV, 4 do
  local name, period, limit, amount = ARGV[i], tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2]), tonumber(ARGV[i + 3])
  local known = redis.call('HMGET', KEYS[1], name .. ':begun', name .. ':used')
  local begun, used = tonumber(known[1]), tonumber(known[2])
  if not begun or now >= begun + period then begun, used = 0, 0 end
  if used + amount > limit then admitted = 0 end
  windows[#windows + 1] = { name = name, period = period, amount = amount, begun = begun, used = used }
end

if counts and admitted == 1 then
  local ends = 0
  for _, window in ipairs(windows) do
    if window.begun == 0 then window.begun = now end
    window.used = window.used + window.amount
    redis.call('HSET', KEYS[1], window.name .. ':begun', string.format('%.0f', window.begun),
      window.name .. ':used', string.format('%.0f', window.used))
    ends = math.max(ends, window.begun + window.period)
  end
  if ends > redis.call('PTTL', KEYS[1]) + now then redis.call('PEXPIRE', KEYS[1], ends - now) end
  if most >= 0 then
    redis.call('ZADD', KEYS[2], now + lease_ms, lease)
    redis.call('PEXPIRE', KEYS[2], lease_ms)
    running = running + 1
  end
end

local told = { admitted, now, running, spent }
for _, window in ipairs(windows) do
  told[#told + 1] = window.begun
  told[#told + 1] = window.used
end
return told
