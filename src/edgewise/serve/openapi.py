"""The REST side described: an OpenAPI 3.1 document, and a page of it without scripts or anything from elsewhere."""

from __future__ import annotations

import html
from functools import lru_cache
from typing import Any

from edgewise import __version__
from edgewise.serve.predict import PICTURES
from edgewise.serve.tensors import DTYPES

PAGE_HEADERS = ((b"content-security-policy", b"default-src 'none'; style-src 'unsafe-inline'"), (b"x-content-type-options", b"nosniff"))
_ERROR = {"schema": {"type": "object", "properties": {"error": {"type": "string"}}, "required": ["error"]}}
_ERRORS = {
    "400": "The request is not what the model or the protocol takes.", "401": "No key, or none that is known.",
    "403": "The key isn't for this, or the Host isn't this server's.", "404": "No such model, version or region.",
    "413": "A body over the limit.", "415": "A content type that isn't taken.",
    "429": "More than this client may ask; see Retry-After.", "500": "The model or the server failed.",
    "503": "Not taken: the queue is full, or its deadline can't be kept; see Retry-After.",
    "504": "Its deadline passed before the answer was there.",
}  # fmt: skip
_COMMON = ("400", "401", "403", "429", "500")


@lru_cache(maxsize=1)
def document() -> dict[str, Any]:
    paths: dict[str, Any] = {
        "/v2": {"get": _call("Server metadata", "ServerMetadata")},
        "/v2/health/live": {"get": _probe("Whether the server runs")},
        "/v2/health/ready": {"get": _probe("Whether it takes requests")},
        "/v2/models/stats": {"get": _call("Statistics of all models", "Statistics")},
        "/v2/repository/index": {"post": _call("Every version of every model", "Index", body="IndexRequest", required=False)},
        "/v2/repository/models/{model}/load": {"post": _call("Into memory, or again from disk", "Empty", ("404", "503"), "Load", False)},
        "/v2/repository/models/{model}/unload": {"post": _call("Out of memory", "Empty", ("404",))},
        "/metrics": {"get": _call("Prometheus metrics", "", content={"text/plain": {"schema": {"type": "string"}}})},
    }
    for base in ("/v2/models/{model}", "/v2/models/{model}/versions/{version}"):
        paths[base] = {"get": _call("Model metadata", "ModelMetadata", ("404",))}
        paths[f"{base}/config"] = {"get": _call("Model configuration", "ModelConfig", ("404",))}
        paths[f"{base}/ready"] = {"get": _probe("Whether the model takes requests", "404")}
        paths[f"{base}/stats"] = {"get": _call("Statistics of the model", "Statistics", ("404",))}
        paths[f"{base}/infer"] = {"post": _infer()}
        paths[f"{base}/predict"] = {"post": _predict()}
    for path, operations in paths.items():
        names = [name for name in ("model", "version") if f"{{{name}}}" in path]
        given = [{"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}} for name in names]
        for operation in operations.values():
            operation["parameters"] = [*given, *operation.get("parameters", [])]
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "edgewise",
            "version": __version__,
            "description": "Open Inference Protocol v2, with pictures and texts beside it.",
        },
        "paths": paths,
        "components": {"schemas": _schemas(), "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}},
        "security": [{}, {"key": []}],
    }


@lru_cache(maxsize=1)
def page() -> bytes:
    rows = []
    for path, operations in document()["paths"].items():
        for method, operation in operations.items():
            statuses = ", ".join(operation["responses"])
            rows.append(
                f"<tr><td>{method.upper()}</td><td><code>{html.escape(path)}</code></td><td>{html.escape(operation['summary'])}</td>"
                f"<td>{statuses}</td></tr>"
            )
    return f"""<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>edgewise: what can be asked</title>
<style>:root{{color-scheme:light dark}}body{{font:16px/1.5 system-ui;max-width:64rem;margin:2rem auto;padding:0 1rem}}
table{{border-collapse:collapse;display:block;overflow-x:auto}}td,th{{text-align:left;padding:.3rem .8rem .3rem 0;
border-bottom:1px solid #8884;vertical-align:top}}pre{{overflow-x:auto;padding:.8rem;background:#8882}}</style>
<h1>edgewise {html.escape(__version__)}</h1>
<p>Open Inference Protocol v2 over REST; the machine's form of this page is <a href="/openapi.json">/openapi.json</a>.
A key, where one is asked for, goes in <code>Authorization: Bearer KEY</code>.</p>
<table><tr><th>Method<th>Address<th>What<th>Answers</tr>{"".join(rows)}</table>
<pre>curl --json '{{"inputs": [{{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}}]}}' …/v2/models/NAME/infer
curl --data-binary @cat.png -H 'content-type: image/png' …/v2/models/NAME/predict?top=3
curl --data 'a gripping, funny film' -H 'content-type: text/plain' …/v2/models/NAME/predict</pre>
<p>Numbers that JSON hasn't got are the strings "NaN", "Infinity" and "-Infinity", both ways. <code>priority</code> 1 goes first;
<code>timeout</code> is in microseconds.</p></html>""".encode()


def _call(
    summary: str,
    schema: str,
    errors: tuple[str, ...] = (),
    body: str = "",
    required: bool = True,
    content: dict[str, Any] | None = None,
) -> dict[str, Any]:
    found = content or {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}
    call: dict[str, Any] = {"summary": summary, "responses": {"200": {"description": "Done.", "content": found}}}
    if body:
        schema_of = {"$ref": f"#/components/schemas/{body}"}
        call["requestBody"] = {"required": required, "content": {"application/json": {"schema": schema_of}}}
        errors = (*errors, "413", "415")
    call["responses"] |= {
        code: {"description": _ERRORS[code], "content": {"application/json": _ERROR}} for code in sorted({*_COMMON, *errors})
    }
    return call


def _probe(summary: str, *errors: str) -> dict[str, Any]:
    answers = {"200": {"description": "Yes."}, "503": {"description": "No."}}
    known = {*errors, "403", *(("400", "401", "429") if errors else ())}
    return {"summary": summary, "responses": answers | {code: {"description": _ERRORS[code]} for code in sorted(known)}}


def _infer() -> dict[str, Any]:
    call = _call("Tensors in, tensors out", "InferenceResponse", ("404", "503", "504"), "InferenceRequest")
    call["parameters"] = [
        {
            "name": "Inference-Header-Content-Length",
            "in": "header",
            "description": "How long the JSON is that raw tensors follow; absent where all of the body is JSON.",
            "schema": {"type": "integer", "minimum": 0},
        }
    ]
    for place in (call["requestBody"], call["responses"]["200"]):
        place["content"]["application/octet-stream"] = {"schema": {"type": "string", "format": "binary"}}
    return call


def _predict() -> dict[str, Any]:
    call = _call("A picture or a text in, labels out", "Predictions", ("404", "503", "504"), "Text")
    call["requestBody"]["content"] |= {kind: {"schema": {"type": "string", "format": "binary"}} for kind in PICTURES[:2]}
    call["requestBody"]["content"]["text/plain"] = {"schema": {"type": "string"}}
    call["parameters"] = [
        {"name": "top", "in": "query", "description": "How many labels.", "schema": {"type": "integer", "minimum": 1, "maximum": 1000}},
        {"name": "timeout", "in": "query", "description": "Microseconds.", "schema": {"type": "integer", "minimum": 0}},
    ]
    return call


def _schemas() -> dict[str, Any]:
    text, whole, anything = {"type": "string"}, {"type": "integer", "minimum": 0}, {"type": "object"}
    shape = {"type": "array", "items": {"type": "integer"}}
    datatype = {"type": "string", "enum": list(DTYPES)}
    data = {"type": "array", "description": "Flat, or nested as the shape is."}

    def record(required: tuple[str, ...] = (), **fields: Any) -> dict[str, Any]:
        return {"type": "object", "properties": fields, "required": list(required)}

    def several(items: dict[str, Any]) -> dict[str, Any]:
        return {"type": "array", "items": items}

    tensor = record(("name", "datatype", "shape"), name=text, datatype=datatype, shape=shape, parameters=anything, data=data)
    interface = several(record(("name", "datatype", "shape"), name=text, datatype=datatype, shape=shape))
    options = record(priority=whole, timeout=whole, binary_data_output={"type": "boolean"})
    output = record(("name",), name=text, parameters=record(binary_data={"type": "boolean"}, classification=whole))
    return {
        "ServerMetadata": record(("name", "version", "extensions"), name=text, version=text, extensions=several(text)),
        "ModelMetadata": record(
            ("name", "platform", "inputs", "outputs"), name=text, versions=several(text), platform=text, inputs=interface, outputs=interface
        ),
        "ModelConfig": record(
            ("name", "max_batch_size"), name=text, max_batch_size=whole, input=several(anything), output=several(anything)
        ),
        "InferenceRequest": record(("inputs",), id=text, inputs=several(tensor), outputs=several(output), parameters=options),
        "InferenceResponse": record(("model_name", "outputs"), model_name=text, model_version=text, id=text, outputs=several(tensor)),
        "Statistics": record(("model_stats",), model_stats=several(anything)),
        "Index": several(record(("name",), name=text, version=text, state=text, reason=text)),
        "IndexRequest": record(ready={"type": "boolean"}),
        "Load": record(),
        "Empty": record(),
        "Text": record(("text",), text={"oneOf": [text, several(text)]}, pair={"oneOf": [text, several(text)]}),
        "Predictions": record(("model_name", "predictions"), model_name=text, model_version=text, predictions=several(anything)),
    }
