// What a user of OpenAI's SDK gets: openai_sdk.mjs PACKAGES BASE_URL [leave]. Prints it as JSON.
// PACKAGES is a directory with node_modules: import would look beside this file.

import { createRequire } from "node:module";

const [packages, baseURL, ...more] = process.argv.slice(2);
const OpenAI = createRequire(`${packages}/`)("openai").default;
const client = new OpenAI({ baseURL, apiKey: "sk-of-the-caller", maxRetries: 0 });
const parameters = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };
const tools = [{ type: "function", function: { name: "weather", parameters } }];
const user = (content) => ({ role: "user", content });

function ask(messages, fields = {}) {
  return client.chat.completions.create({ model: "research-ensemble", messages, ...fields });
}

async function* pieces(text) {
  for await (const chunk of await ask([user(text)], { stream: true })) {
    for (const choice of chunk.choices) {
      if (choice.delta.content) yield choice.delta.content;
    }
  }
}

async function collected(text) {
  const all = [];
  for await (const piece of pieces(text)) all.push(piece);
  return all;
}

async function called() {
  const asked = user("use the tool");
  const { message } = (await ask([asked], { tools })).choices[0];
  const results = message.tool_calls.map(({ id }) => ({ role: "tool", tool_call_id: id, content: "sunny" }));
  const last = (await ask([asked, message, ...results], { tools })).choices[0].message;
  const calls = message.tool_calls.map((call) => [call.function.name, JSON.parse(call.function.arguments)]);
  return { calls, content: last.content };
}

async function caught(text, fields) {
  try {
    await ask([user(text)], fields);
  } catch (error) {
    return { kind: error.constructor.name, status: error.status, code: error.code, message: error.error.message };
  }
}

const report = {
  plain: (await ask([user("say it")])).choices[0].message.content,
  stream: await collected("say it"),
  tools: await called(),
  wrong: await caught("say it", { n: 2 }),
  limited: await caught("be limited"),
};
if (more.length > 0) {
  for await (const piece of pieces("leave early")) {
    report.left = piece;
    break;
  }
}
console.log(JSON.stringify(report));
