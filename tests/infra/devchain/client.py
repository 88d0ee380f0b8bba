"""A URL and calls in, answers out: the smallest client."""

import json
import urllib.error
import urllib.request
from typing import Any


def post(url: str, body: bytes) -> bytes:
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as response:
        return response.read()


def answer(url: str, method: str, *params: Any) -> dict[str, Any]:
    call = {"jsonrpc": "2.0", "id": 1, "method": method, "params": list(params)}
    return json.loads(post(url, json.dumps(call).encode()))


def call(url: str, method: str, *params: Any) -> Any:
    answered = answer(url, method, *params)
    assert "error" not in answered, answered
    return answered["result"]


def refusal(url: str, method: str, *params: Any) -> tuple[int, str]:
    error = answer(url, method, *params)["error"]
    return error["code"], error["message"]
