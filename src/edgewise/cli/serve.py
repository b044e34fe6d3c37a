"""`edgewise serve`: the models of a folder, over REST and gRPC, with a live page."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgewise.errors import InvalidInput

if TYPE_CHECKING:
    from edgewise.package.signing import Trust
    from edgewise.serve.config import Server, Tls
    from edgewise.serve.upstream import Mirror


def command(
    models: Annotated[
        str | None,
        typer.Argument(
            help="A folder with NAME/VERSION/model.edgew (or .onnx), or with NAME.edgew; or https://…/ of one with an index.json.",
            metavar="MODELS",
            show_default=False,
        ),
    ] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen at (127.0.0.1: this machine alone).")] = None,
    port: Annotated[int | None, typer.Option(help="Port of REST and the page (8080).", min=0, max=65535)] = None,
    grpc_port: Annotated[int | None, typer.Option(help="Port of gRPC (8081), where it is installed.", min=0, max=65535)] = None,
    memory: Annotated[
        str | None, typer.Option(help="The most that models may take, as 256MB; who isn't used leaves.", metavar="SIZE")
    ] = None,
    keys: Annotated[Path | None, typer.Option(help="Who may ask: a keys.toml, read again when it changes.", metavar="FILE")] = None,
    tls: Annotated[
        tuple[Path, Path] | None, typer.Option(help="Certificate and key, PEM: HTTPS instead of HTTP.", metavar="CERT KEY")
    ] = None,
    client_ca: Annotated[
        Path | None, typer.Option("--client-ca", help="Let in only those whose certificates these signed (mutual TLS).", metavar="FILE")
    ] = None,
    trust: Annotated[
        Path | None, typer.Option(help="Serve only packages that these keys signed: a folder of .pub files, or one.", metavar="PATH")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="All settings, of the server and of its models: a serve.toml.", metavar="FILE")
    ] = None,
    log: Annotated[str | None, typer.Option(help="How it logs: json, or plain for people (what a terminal gets).", metavar="FORM")] = None,
    otlp: Annotated[
        str | None,
        typer.Option(help="Send traces to an OpenTelemetry collector, by OTLP over HTTP: http://collector:4318.", metavar="URL"),
    ] = None,
    new_key: Annotated[
        str | None, typer.Option("--new-key", help="Make a key, show it once, add its hash to --keys, and end.", metavar="NAME")
    ] = None,
    cache: Annotated[
        Path | None, typer.Option(help="Where packages from an https:// address are kept (the user's cache folder).", metavar="DIR")
    ] = None,
    index: Annotated[
        bool, typer.Option("--index", help="Write MODELS/index.json, and updates between versions, for others to serve from; and end.")
    ] = False,
    admin: Annotated[bool, typer.Option("--admin", help="With --new-key: it may load and unload models, too.")] = False,
) -> None:
    """Serve models by the Open Inference Protocol v2, until SIGTERM or Ctrl-C; what was taken is answered before it ends.

    Options override what --config says.

    Example: edgewise serve models/

    Example: edgewise serve https://models.example/edge/ --trust makers/

    Example: edgewise serve models/ --memory 256MB --keys keys.toml --tls cert.pem key.pem --config serve.toml
    """
    from edgewise import registry

    for module in ("uvicorn", "httptools", "prometheus_client"):
        registry.need(module)
    from edgewise.serve import config as files
    from edgewise.serve import logs, starting

    if new_key is not None:
        _add_key(new_key, keys, admin)
        return
    if models is None:
        raise InvalidInput("give the folder with the models: edgewise serve models/")
    if index:
        _index(Path(models))
        return
    file = files.read(config) if config is not None else files.File()
    told: dict[str, Any] = {"host": host, "port": port, "grpc_port": grpc_port, "keys": keys, "log": log}
    told["tls"] = _tls(file.server.tls, tls, client_ca)
    if otlp is not None:
        tracing = file.server.tracing
        told["tracing"] = replace(tracing, otlp=otlp) if tracing else files.Tracing(otlp)
    if log not in (None, "json", "plain"):
        raise InvalidInput(f"--log {log}: give json or plain")
    server = replace(file.server, **{name: value for name, value in told.items() if value is not None})
    logs.set_up(plain=server.log == "plain" or (log is None and config is None and sys.stderr.isatty()))
    trusted = _trust(trust)
    folder, mirror = (_mirror(models, cache, trusted)) if "://" in models else (Path(models), None)
    edge = starting.edge(
        folder,
        replace(file, server=server),
        memory_bytes=files.size(memory) if memory else None,
        trust=trusted,
        mirror=mirror,
        source=str(config or "serve.toml"),
    )
    edge.run(lambda address: _told(address, server))


def _tls(before: Tls | None, files: tuple[Path, Path] | None, clients: Path | None) -> Tls | None:
    """before: what --config says; who may connect stays as it is there unless told otherwise."""
    from edgewise.serve.config import Tls

    found = before if files is None else Tls(*files, before.clients if before is not None else None)
    if clients is None:
        return found
    if found is None:
        raise InvalidInput("--client-ca asks clients for certificates, which needs TLS: give --tls cert.pem key.pem too")
    return replace(found, clients=clients)


def _told(address: str, server: Server) -> None:
    from edgewise.serve.server import exposure
    from edgewise.serve.starting import speaks_grpc

    warning = exposure(server)
    if warning:
        print(warning, file=sys.stderr, flush=True)
    also = f"; gRPC on port {server.grpc_port}" if speaks_grpc(server) else ""
    print(f"edgewise serve on {address}{also}. The page: {address}/  What can be asked: {address}/docs", flush=True)


def _index(folder: Path) -> None:
    from edgewise.serve import upstream

    made = upstream.index(folder)
    updates = sum(len(version.updates) for version in made.models)
    print(f"{folder / upstream.INDEX}: {len(made.models)} packages, {updates} updates between them")


def _mirror(address: str, cache: Path | None, trust: Trust | None) -> tuple[Path, Mirror]:
    """Asked once before anything is served; where that can't be, what came before is."""
    import hashlib

    from edgewise.measure.roofs import cache_folder
    from edgewise.serve import starting, upstream
    from edgewise.serve.logs import say

    folder = cache or cache_folder() / "serve" / hashlib.sha256(address.encode()).hexdigest()[:16]
    mirror = upstream.Mirror(upstream.https(address), folder, trust, say)
    starting.first_sync(mirror)
    return folder, mirror


def _trust(path: Path | None) -> Trust | None:
    if path is None:
        return None
    from edgewise.package import signing

    return signing.trusted(path)


def _add_key(name: str, path: Path | None, admin: bool) -> None:
    """Append, then read the whole: a file that would not be understood is left as it was."""
    from edgewise.package import atomic
    from edgewise.serve import keys

    if path is None:
        raise InvalidInput("say which file the key's hash goes to: --keys keys.toml")
    before = path.read_text() if path.exists() else ""
    key = keys.new_key()
    after = f"{before.rstrip()}\n\n" if before.strip() else ""
    after += keys.entry(name, key, ("infer", "admin") if admin else ("infer",))
    keys.parse(after, str(path))
    atomic.write_bytes(path, after.encode(), mode=0o600)
    print(f"{key}\nis the key of {name}, shown this once; {path} holds its hash. Send it as Authorization: Bearer KEY", flush=True)
