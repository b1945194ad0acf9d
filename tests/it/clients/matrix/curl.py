"""What a user of curl gets: curl.py BASE_URL [leave]. Prints it as JSON."""

import json
import subprocess
import sys

url, *more = sys.argv[1:]
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": CITY}}]


def user(text):
    return {"role": "user", "content": text}


def curl(*messages, **fields):
    body = json.dumps({"model": "research-ensemble", "messages": messages, **fields})
    header = "content-type: application/json"
    command = ["curl", "-sSN", "-w", "\n%{http_code}", "-H", header, "-d", body, f"{url}/chat/completions"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def ask(*messages, **fields):
    body, _, status = curl(*messages, **fields).communicate()[0].rpartition("\n")
    return int(status), json.loads(body)


def message(*messages, **fields):
    return ask(*messages, **fields)[1]["choices"][0]["message"]


def pieces(lines):
    for line in lines:
        data = line.removeprefix("data: ").strip()
        if line.startswith("data: ") and data != "[DONE]":
            for choice in json.loads(data)["choices"]:
                if choice["delta"].get("content"):
                    yield choice["delta"]["content"]


def tools():
    asked = user("use the tool")
    called = message(asked, tools=TOOLS)
    results = [
        {"role": "tool", "tool_call_id": call["id"], "content": "sunny"} for call in called["tool_calls"]
    ]
    functions = [call["function"] for call in called["tool_calls"]]
    calls = [[function["name"], json.loads(function["arguments"])] for function in functions]
    return {"calls": calls, "content": message(asked, called, *results, tools=TOOLS)["content"]}


def caught(text, **fields):
    status, body = ask(user(text), **fields)
    return {"status": status, "code": body["error"]["code"], "message": body["error"]["message"]}


with curl(user("say it"), stream=True) as streaming:
    stream = list(pieces(streaming.stdout))
report = {
    "plain": message(user("say it"))["content"],
    "stream": stream,
    "tools": tools(),
    "wrong": caught("say it", n=2),
    "limited": caught("be limited"),
}
if more:
    with curl(user("leave early"), stream=True) as leaving:
        report["left"] = next(pieces(leaving.stdout))
        leaving.terminate()
print(json.dumps(report))
