from tests.census import texts

XML = "<domain type='kvm'><name>a</name><os><boot dev='hd'/></os></domain>"


def _leaves(text: str, kind: str = "") -> dict[str, str]:
    return {path: text[span.start : span.end] for span, path in texts.leaves(text, kind)}


def test_attributes_and_texts_of_xml_are_leaves() -> None:
    assert _leaves(XML) == {
        "domain@type": "kvm",
        "domain/name": "a",
        "domain/os/boot@dev": "hd",
    }


def test_an_attribute_is_removed_with_its_name() -> None:
    [span] = [span for span, path in texts.leaves(XML, "") if path == "domain/os/boot@dev"]

    assert XML[: span.first] + XML[span.last :] == XML.replace(" dev='hd'", "")


def test_elements_are_members() -> None:
    found = {path: XML[span.start : span.end] for span, path in texts.members(XML, "")}

    assert found == {
        "domain/name": "<name>a</name>",
        "domain/os/boot": "<boot dev='hd'/>",
        "domain/os": "<os><boot dev='hd'/></os>",
    }


ARGV = (
    '/usr/bin/qemu\0-m\0size=64,slots=2\0-blockdev\0{"driver":"file","filename":"/a"}\0-no-acpi\0'
)


def test_options_of_a_command_line_are_leaves() -> None:
    assert _leaves(ARGV, "/proc/PID/cmdline") == {
        "argv0 ": "/usr/bin/qemu",
        "-m size": "64",
        "-m slots": "2",
        "-blockdev file.driver": "file",
        "-blockdev file.filename": "/a",
    }


def test_an_option_is_removed_with_its_value() -> None:
    found = {path: ARGV[span.start : span.end] for span, path in texts.members(ARGV, "cmdline")}

    assert found["-m"] == "-m\0size=64,slots=2"


def test_the_first_line_of_each_form_is_a_leaf() -> None:
    assert _leaves("a 1\na 2\nb\n") == {"line a N": "a 1", "line b": "b"}
