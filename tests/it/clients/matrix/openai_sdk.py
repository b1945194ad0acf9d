"""What a user of OpenAI's SDK gets: openai_sdk.py BASE_URL [leave]. Prints it as JSON."""

import json
import sys

import openai

url, *more = sys.argv[1:]
client = openai.OpenAI(base_url=url, api_key="sk-of-the-caller", max_retries=0)
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": CITY}}]


def user(text):
    return {"role": "user", "content": text}


def ask(*messages, **fields):
    return client.chat.completions.create(model="research-ensemble", messages=list(messages), **fields)


def pieces(text):
    for chunk in ask(user(text), stream=True):
        for choice in chunk.choices:
            if choice.delta.content:
                yield choice.delta.content


def tools():
    asked = user("use the tool")
    called = ask(asked, tools=TOOLS).choices[0].message
    results = [
        {"role": "tool", "tool_call_id": call.id, "content": "sunny"} for call in called.tool_calls
    ]
    last = ask(asked, called.model_dump(exclude_none=True), *results, tools=TOOLS).choices[0].message
    calls = [[call.function.name, json.loads(call.function.arguments)] for call in called.tool_calls]
    return {"calls": calls, "content": last.content}


def caught(text, **fields):
    try:
        ask(user(text), **fields)
    except openai.APIStatusError as error:
        kind, message = type(error).__name__, error.body["message"]
        return {"kind": kind, "status": error.status_code, "code": error.code, "message": message}


report = {
    "plain": ask(user("say it")).choices[0].message.content,
    "stream": list(pieces("say it")),
    "tools": tools(),
    "wrong": caught("say it", n=2),
    "limited": caught("be limited"),
}
if more:
    stream = pieces("leave early")
    report["left"] = next(stream)
    stream.close()
print(json.dumps(report))
