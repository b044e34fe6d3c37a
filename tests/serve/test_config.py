"""serve.toml: what it says is what is served, and what it can't mean is an error."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from edgewise.errors import InvalidInput
from edgewise.serve import config
from edgewise.serve.config import Server, Tls, Tracing
from edgewise.serve.starting import host_settings

DOCS = Path(__file__).parents[2] / "docs" / "serving.md"


def test_what_the_docs_show_is_understood() -> None:
    (text,) = re.findall(r"```\n(host = .*?)```", DOCS.read_text(), re.DOTALL)
    file = config.parse(text)
    assert file.server.hosts == ("camera.local",) and file.server.body == 64 << 20 and file.server.linger_s == 5.0
    assert file.server.tls == Tls(Path("cert.pem"), Path("key.pem")) and file.server.keys == Path("keys.toml")
    assert file.server.tracing == Tracing("http://collector:4318", 0.1)
    assert file.server.limits.concurrent == 16 and file.server.patience.head_s == 10
    told = host_settings(file.host, file.models, "serve.toml")
    assert told.memory_bytes == 256_000_000 and told.cores == 2
    model = told.of("mobilenet")
    assert model.deadline_ms == 50 and model.versions.canary == "3" and told.of("other").deadline_ms is None


def test_nothing_said_is_the_defaults() -> None:
    assert config.parse("").server == Server() and Server().loopback


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("prot = 1", "did you mean 'port'"),
        ("model = {}", "did you mean 'models'"),
        ("[limits]\nrequest_per_s = 1", "did you mean 'requests_per_s'"),
        ("[tls]\ncertificate = 'a'", "'key' is missing"),
        ("zzz = 1", "known are"),
        ("port = 'eighty'", "size"),
        ("port = 65536", "65535"),
        ("port = true", "whole number"),
        ("host = 1", "has to be text"),
        ("hosts = 'a'", "list"),
        ("limits = 1", "table"),
        ("models = 1", "table"),
        ("[models]\na = 1", "table"),
        ("log = 'xml'", "'json' or 'plain'"),
        ("drain_s = nan", "a number"),
        ("body = 1", "1024"),
        ("=", "no TOML"),
    ],
)
def test_what_cannot_be_meant(text: str, said: str) -> None:
    with pytest.raises(InvalidInput, match=r"serve\.toml") as told:
        config.parse(text)
    assert said in str(told.value)


def test_models_settings_are_checked_too() -> None:
    file = config.parse("[models.a]\ndeadline = 5\n")
    with pytest.raises(InvalidInput, match=r"models\.a: unknown key 'deadline'; did you mean 'deadline_ms'"):
        host_settings(file.host, file.models, "serve.toml")
    for table in ({"trust": "x"}, {"models": {}}, {"cores": -1}):
        with pytest.raises(InvalidInput, match="execution"):
            host_settings(table, {}, "serve.toml")


def test_sizes() -> None:
    assert [config.size(text) for text in ("5", "2kB", "1.5 MB", "1MiB")] == [5, 2000, 1_500_000, 1 << 20]
    for wrong in ("", "MB", "1mb", "-1MB", "1 TB"):
        with pytest.raises(InvalidInput):
            config.size(wrong)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="can't read"):
        config.read(tmp_path / "serve.toml")
