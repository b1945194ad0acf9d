// A mock of many providers that nobody here wrote. Prints its address; ends when its standard input does.
import { createRequire } from "node:module";

const { LLMock } = createRequire(`${process.argv[2]}/package.json`)("@copilotkit/aimock");
const mock = new LLMock({ port: 0, host: "127.0.0.1" });
mock.on({ userMessage: "weather", hasToolResult: true }, { content: "It is 21 °C in Köln." });
mock.on(
  { userMessage: "weather" },
  { toolCalls: [{ name: "weather", arguments: '{"city":"Köln","days":2}' }, { name: "clock", arguments: "{}" }] },
);
mock.on({ userMessage: "think" }, { content: "So it is — só 🙂.", reasoning: "Let me see." });
mock.on({ userMessage: "fail" }, { error: { message: "prompt is too long", type: "invalid_request_error" }, status: 400 });
mock.on({ userMessage: "plain" }, { content: "Hello, só 🙂." });
await mock.start();
console.log(mock.url);
process.stdin.resume();
process.stdin.on("end", () => process.exit(0));
