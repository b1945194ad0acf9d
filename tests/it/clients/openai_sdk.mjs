// Asks an ensemble as a user of OpenAI's SDK would: openai_sdk.mjs PACKAGES GROUP BASE_URL. Prints what came as JSON.
// PACKAGES is a directory with node_modules: import would look beside this file.

import { createRequire } from "node:module";

const [packages, group, baseURL] = process.argv.slice(2);
const OpenAI = createRequire(`${packages}/`)("openai").default;
const client = new OpenAI({ baseURL, apiKey: "sk-of-the-caller" });
const parameters = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };
const tools = [{ type: "function", function: { name: "weather", parameters } }];

function question(text = "why?", more = {}) {
  return { model: "research-ensemble", messages: [{ role: "user", content: text }], ...more };
}

function helped(asked) {
  return client.chat.completions.stream(asked).finalChatCompletion();
}

async function answers() {
  const plain = await client.chat.completions.create(question());

  const stream = [];
  const options = { stream: true, stream_options: { include_usage: true } };
  for await (const chunk of await client.chat.completions.create(question("why?", options))) {
    stream.push(chunk);
  }

  const helper = await helped(question());

  let refused;
  try {
    await client.chat.completions.create(question("why?", { n: 2 }));
  } catch (error) {
    const { status, code, param, type } = error;
    refused = { kind: error.constructor.name, status, code, param, type };
  }
  return { plain, stream, helper, refused };
}

async function selected() {
  return {
    long: await helped(question("long", { tools })),
    tools: await helped(question("tools", { tools })),
    logprobs: await helped(question("logprobs", { tools, logprobs: true })),
  };
}

async function models() {
  const ids = [];
  for await (const model of client.models.list()) {
    ids.push(model.id);
  }
  return { ids, one: (await client.models.retrieve("research-ensemble")).id };
}

console.log(JSON.stringify(await { answers, selected, models }[group]()));
