import json

from tests.census import tree

ROWS = {"columns": ["id", "flavor"], "rows": [[1, json.dumps({"vcpus": 2})], [2, None]]}


def test_a_row_s_cells_are_leaves_under_their_column_and_json_inside_is_read() -> None:
    found = list(tree.leaves(ROWS))

    assert [path for _, path in found] == ["[id]", "[flavor].vcpus", "[id]", "[flavor]"]
    assert [tree.get(ROWS, place) for place, _ in found] == [1, 2, 2, None]


def test_a_value_inside_json_is_replaced_without_touching_the_original() -> None:
    [place] = [place for place, path in tree.leaves(ROWS) if path == "[flavor].vcpus"]

    changed = tree.put(ROWS, place, 4)

    assert json.loads(changed["rows"][0][1]) == {"vcpus": 4}
    assert tree.get(ROWS, place) == 2


def test_open_vswitch_s_own_words_are_no_values() -> None:
    table = {
        "headings": ["_uuid", "ids", "tags"],
        "data": [[["uuid", "ab"], ["map", [["iface-id", "cd"]]], ["set", [1, 2]]]],
    }

    found = [(path, tree.get(table, place)) for place, path in tree.leaves(table)]

    assert found == [
        ("[_uuid][]", "ab"),
        ("[ids]{iface-id}", "cd"),
        ("[tags][][]", 1),
        ("[tags][][]", 2),
    ]


def test_members_are_rows_and_objects_of_lists() -> None:
    body = {"servers": [{"id": "a", "tags": ["x"]}, {"id": "b"}]}

    assert [path for _, path in tree.members(ROWS)] == ["[rows]", "[rows]"]
    assert [path for _, path in tree.members(body)] == [
        ".servers[]",
        ".servers[].tags[]",
        ".servers[]",
    ]
    assert tree.without(body, ("servers", 0)) == {"servers": [{"id": "b"}]}
    assert tree.beside({"a": [1, 3]}, ("a", 0), 2) == {"a": [1, 2, 3]}
