"""What a user of LangChain gets: chat_openai.py BASE_URL [leave]. Prints it as JSON."""

import json
import sys

import openai
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_openai import ChatOpenAI

url, *more = sys.argv[1:]
model = ChatOpenAI(model="research-ensemble", base_url=url, api_key="sk-of-the-caller", max_retries=0)


def weather(city: str) -> str:
    """How the weather is in a city."""
    return "sunny"


def pieces(text):
    return (chunk.content for chunk in model.stream(text) if chunk.content)


def tools():
    calling = model.bind_tools([weather])
    asked = HumanMessage("use the tool")
    called = calling.invoke([asked])
    results = [ToolMessage(weather(**call["args"]), tool_call_id=call["id"]) for call in called.tool_calls]
    calls = [[call["name"], call["args"]] for call in called.tool_calls]
    return {"calls": calls, "content": calling.invoke([asked, called, *results]).content}


def caught(text, **fields):
    try:
        model.invoke(text, **fields)
    except openai.APIStatusError as error:
        kind, message = openai_kind(error), error.body["message"]
        return {"kind": kind, "status": error.status_code, "code": error.code, "message": message}


def openai_kind(error):
    """LangChain may raise a class of its own below the SDK's."""
    return next(kind.__name__ for kind in type(error).__mro__ if kind.__module__.startswith("openai"))


report = {
    "plain": model.invoke("say it").content,
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
