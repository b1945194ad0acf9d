// Asks an ensemble as a user of OpenAI's SDK would: openai_sdk.mjs PACKAGES BASE_URL. Prints what came as JSON.
// PACKAGES is a directory with node_modules: import would look beside this file.

import { createRequire } from "node:module";

const [packages, baseURL] = process.argv.slice(2);
const OpenAI = createRequire(`${packages}/`)("openai").default;
const client = new OpenAI({ baseURL, apiKey: "sk-of-the-caller" });
const asked = { model: "research-ensemble", messages: [{ role: "user", content: "why?" }] };

const plain = await client.chat.completions.create(asked);

const stream = [];
const options = { stream: true, stream_options: { include_usage: true } };
for await (const chunk of await client.chat.completions.create({ ...asked, ...options })) {
  stream.push(chunk);
}

const helper = await client.chat.completions.stream(asked).finalChatCompletion();

let refused;
try {
  await client.chat.completions.create({ ...asked, n: 2 });
} catch (error) {
  const { status, code, param, type } = error;
  refused = { kind: error.constructor.name, status, code, param, type };
}

console.log(JSON.stringify({ plain, stream, helper, refused }));
