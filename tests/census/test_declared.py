from pathlib import Path

import pytest
from tests.census.declared import BadDeclarationError, complaints, load
from tests.census.leaf import Kind
from tests.census.result import Row
from tests.census.verdict import Word

ENTRY = """
[[declared]]
question = "GET /v2.0/subnets"
paths = [".subnets[].dns*", ".subnets[].name"]
reason = "chosen by its owner"
"""


def _row(path: str, word: Word = Word.SILENT, *told: str) -> Row:
    return Row(
        Kind("neutron", "GET /v2.0/subnets", path), word, "a-check", "near", "", told, "healthy"
    )


def _load(folder: Path, text: str) -> tuple[object, ...]:
    (folder / "neutron.toml").write_text(text)
    return load(folder)


def test_a_declaration_covers_the_leaves_that_its_patterns_match(tmp_path: Path) -> None:
    (tmp_path / "neutron.toml").write_text(ENTRY)
    [one] = load(tmp_path)

    assert one.covers(_row(".subnets[].dns_nameservers[]").kind)
    assert not one.covers(_row(".subnets[].dns_nameservers[]").kind, ".subnets[].name")
    assert not one.covers(_row(".subnets[].cidr").kind)
    assert not one.covers(Kind("nova", "GET /v2.0/subnets", ".subnets[].name"))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("chosen by its owner", "nobody looks at it"),
        ("question =", "query ="),
        ("reason =", 'whose = "x"\nreason ='),
        ("[[declared]]", "[[declared"),
    ],
)
def test_a_bad_entry_is_refused(tmp_path: Path, old: str, new: str) -> None:
    with pytest.raises(BadDeclarationError, match=r"neutron\.toml"):
        _load(tmp_path, ENTRY.replace(old, new))


def test_what_is_declared_must_exist_be_silent_and_be_explained(tmp_path: Path) -> None:
    (tmp_path / "neutron.toml").write_text(ENTRY)
    declared = load(tmp_path)
    dns, name = ".subnets[].dns_nameservers[]", ".subnets[].name"

    def wrong(*rows: Row) -> list[str]:
        return [text.partition(": ")[2] for text in complaints(declared, rows)]

    assert wrong(_row(dns), _row(name)) == []
    assert wrong(_row(dns)) == ["GET /v2.0/subnets: .subnets[].name matches no leaf"]
    assert wrong(_row(dns), _row(name, Word.JUDGED)) == [
        "GET /v2.0/subnets: .subnets[].name matches .subnets[].name, judged by a-check"
    ]
    assert wrong(_row(dns), _row(name, Word.SILENT, "nova-db")) == [
        "GET /v2.0/subnets: .subnets[].name needs `why`: nova-db tells it too"
    ]


def test_the_project_s_own_declarations_can_be_read() -> None:
    load()
