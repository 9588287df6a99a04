from pathlib import Path

from tests.census.declared import Declaration
from tests.census.leaf import Kind
from tests.census.page import page
from tests.census.result import Row, read, written
from tests.census.verdict import Word


def _row(layer: str, path: str, word: Word, by: str = "", thing: str = "", *told: str) -> Row:
    return Row(Kind(layer, "GET /", path), word, by, "near", thing, told, "healthy")


ROWS = (
    _row("nova", ".vcpus", Word.JUDGED, "vcpu-chain-mismatch", "vCPUs of a flavor", "libvirt"),
    _row("libvirt", "domain/vcpu", Word.JUDGED, "vcpu-chain-mismatch", "vCPUs of a flavor", "nova"),
    _row("kernel", "-smp ", Word.SILENT, "", "vCPUs of a flavor", "nova"),
    _row("nova", ".links[]", Word.SILENT),
    _row("nova", ".name", Word.SHOWN, "explain"),
)


def test_a_result_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "result.tsv"
    path.write_text("".join(written(ROWS)))

    assert read(path) == tuple(sorted(ROWS, key=lambda row: row.kind))


def test_the_page_names_who_compares_a_thing_and_which_layers_nobody_compares() -> None:
    declared = [Declaration("nova", "GET /", (".links[]",), "copy of the same record", "A link.")]

    text = "\n".join(page(ROWS, declared))

    check = "[vcpu-chain-mismatch](checks/vcpu-chain-mismatch.md): nova–libvirt"
    assert (
        f"| vCPUs of a flavor | nova, libvirt, kernel | {check} | nova, libvirt \\| kernel |"
        in text
    )
    assert "| nova API | 3 | 1 | 0 | 1 | 1 | 0 | 1 | 1 |" in text
    assert "| kernel | 1 | 0 | 0 | 0 | 0 | 1 | 1 | 0 |" in text
    assert "| nova API | `GET /` | `.links[]` | A link. |" in text
