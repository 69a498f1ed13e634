"""pack --from: what a module of the user's makes becomes a data set of samples, or an error that
says what is wrong with which sample."""

from __future__ import annotations

import itertools
import json
import sys
import textwrap

import numpy as np
import pytest
from record_sets import check_clean
from sample_sets import read_samples, value_of_samples, write_samples

from torch_s3io import SampleDataset
from torch_s3io.cli import main

_NUMBERS = itertools.count()


@pytest.fixture
def module(disk, monkeypatch):
    """Writes a module into the current folder, under a name that no other test has."""
    monkeypatch.chdir(disk)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def write(source: str) -> str:
        name = f"made_samples_{next(_NUMBERS)}"
        lines = "import numpy as np\nimport torch\n" + textwrap.dedent(source)
        (disk / f"{name}.py").write_text(lines)
        return name

    return write


def pack(place: str, *arguments: object) -> int:
    return main([*map(str, ["pack", "--from", place, "-o", "out", *arguments])])


MIXED = """
    def samples():
        for number in range(40):
            yield {
                "image": bytes([number]) * number,
                "text": "ü" * (number % 3),
                "label": number - 5,
                "score": number / 4,
                "valid": number % 2 == 0,
                "tokens": np.arange(number, dtype=np.uint16),
                "mask": torch.ones(number % 2, 3, dtype=torch.bfloat16),
                "box": np.arange(4, dtype=np.float32) + number,
                "small": np.int8(number),
            }
"""


def test_samples_of_every_kind_come_back(disk, module, capsys):
    assert pack(f"{module(MIXED)}:samples", "--shard-mib", 0.002) == 0
    output = capsys.readouterr()
    assert output.err == ""
    assert output.out.startswith(
        "fields: --field image=bytes --field text=str --field label=int64 --field score=float64 "
        "--field valid=bool --field 'tokens=uint16[n]' --field 'mask=bfloat16[n,n]' "
        "--field 'box=float32[n]' --field small=int8\nout: 40 samples of "
    )
    assert "--field 'mask=bfloat16[n,3]' --field 'box=float32[4]' would fix them" in output.out
    samples = read_samples(disk / "out")
    for number, sample in enumerate(samples):
        assert sample["image"][0] == bytes([number]) * number
        assert sample["text"][0].decode() == "ü" * (number % 3)
        assert sample["label"] == ((number - 5).to_bytes(8, "little", signed=True), ())
        assert sample["score"][0] == np.float64(number / 4).tobytes()
        assert sample["valid"][0] == bytes([number % 2 == 0])
        assert sample["tokens"][0] == np.arange(number, dtype="u2").tobytes()
        assert sample["mask"] == (b"\x80\x3f" * 3 * (number % 2), (number % 2, 3))
        assert sample["box"] == ((np.arange(4, dtype="f4") + number).tobytes(), (4,))
        assert sample["small"] == (bytes([number]), ())
    assert len(json.loads((disk / "out/manifest.json").read_text())["shards"]) > 2
    check_clean(disk / "out")
    assert main(["verify", "out"]) == 0
    assert main(["info", "out"]) == 0
    assert "tokens: uint16 [n], n at most 39" in capsys.readouterr().out


def test_fields_are_what_options_or_the_source_say(disk, module, capsys):
    source = MIXED + "\n    samples.fields = {'label': 'i8'}\n"
    only_label = "[{'label': sample['label']} for sample in samples()]"
    name = module(
        MIXED + f"\n    some = lambda: {only_label}\n    some.fields = {{'label': 'i2'}}\n"
    )
    assert pack(f"{name}:some") == 0
    assert "fields: --field label=int16\n" in capsys.readouterr().out
    assert pack(f"{name}:some", "--overwrite", "--field", "label=int8") == 0
    assert "fields: --field label=int8\n" in capsys.readouterr().out
    assert pack(f"{name}:samples", "--overwrite", "--field", "box=float32[4]", "--field",
                "mask = bfloat16[n, 3]".replace(" = ", "=")) == 0  # fmt: skip
    assert "would fix" not in capsys.readouterr().out
    (batch,) = SampleDataset("out", batch_size=40)
    assert batch["box"].shape == (40, 4)
    assert batch["mask"][1].shape == (1, 3)
    assert pack(f"{module(source)}:samples", "--overwrite") == 1
    assert "sample 0: no field is named 'image', " in capsys.readouterr().err


MANY_WAYS = """
    class Iterable:
        def __iter__(self):
            return iter(items)

    class MapStyle:  # as torch's data sets may be: no IndexError at the end
        def __len__(self):
            return 3

        def __getitem__(self, number):
            return {"x": number}

    class Both(Iterable):
        def __call__(self):
            raise AssertionError("what is iterable is not called")

    items = [{"x": number} for number in range(3)]
    iterator = iter(items)
    generator = (item for item in items)
    function = lambda: items
    class_of_iterables = Iterable
    iterable, map_style, both = Iterable(), MapStyle(), Both()

    class Inner:
        inner = staticmethod(lambda optional=1: MapStyle())
"""


@pytest.mark.parametrize(
    "name", ["items", "iterator", "generator", "function", "class_of_iterables", "iterable",
             "map_style", "both", "MapStyle", "Inner.inner"],
)  # fmt: skip
def test_whatever_gives_dicts_is_a_source(disk, module, name):
    assert pack(f"{module(MANY_WAYS)}:{name}") == 0
    numbers = [sample["x"][0] for sample in read_samples(disk / "out")]
    assert numbers == [number.to_bytes(8, "little") for number in range(3)]


def test_a_source_may_use_the_same_memory_for_every_sample(disk, module):
    name = module("""
        def samples():
            sample = {"x": np.zeros(5, np.uint8), "y": bytearray(5)}
            for number in range(200):
                sample["x"][:] = number
                sample["y"][:] = bytes([number]) * 5
                yield sample
    """)
    assert pack(f"{name}:samples") == 0
    found = [(sample["x"][0], sample["y"][0]) for sample in read_samples(disk / "out")]
    assert found == [(bytes([number]) * 5,) * 2 for number in range(200)]


def of_sample_17(change: str) -> str:
    return f"""
        def samples():
            for number in range(20):
                sample = {{"x": number, "y": b"a", "z": np.zeros(2, np.uint16)}}
                if number == 17:
                    {change}
                yield sample
    """


AT_17 = [
    ("del sample['y']", "sample 17: 'y' missing: the fields are 'x', 'y', 'z'"),
    ("sample['new'] = 1", "sample 17: no field is named 'new': the fields are"),
    ("sample['x'] = 0.5", "sample 17, field 'x': int64 cannot hold 0.5"),
    ("sample['y'] = 'text'", "not str; numpy.asarray and torch.as_tensor make one; "
                             "fields are as in sample 0, and --field NAME=KIND gives another"),
    ("sample['z'] = np.zeros(2)", "sample 17, field 'z': uint16 [n] is expected, not float64 [2]"),
    ("sample['z'] = np.zeros((1, 2), 'u2')", "'z': uint16 [n] is expected, not uint16 [1, 2]"),
    ("sample = 5", "sample 17: a dict is expected, such as {'image': ..., 'label': ...}, not int"),
    ("raise ValueError('no such\\nimage')", "sample 17 could not be made: ValueError: no such\\n"
                                           "image (NAME.py, line 8, in samples)"),
    ("np.zeros(3).reshape(2, 2)", "sample 17 could not be made: ValueError: cannot reshape array "
                                  "of size 3 into shape (2,2) (NAME.py, line 8, in samples)"),
    ("raise SystemExit", "sample 17 could not be made: SystemExit (NAME.py, line 8, in samples)"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "text"), AT_17)
@pytest.mark.parametrize("holds_one", [False, True])
def test_an_error_names_the_sample_and_leaves_what_there_was(
    disk, module, capsys, change, text, holds_one
):
    if holds_one:
        write_samples(disk / "out", 1)
    name = module(of_sample_17(change).replace("\\n", "\\\\n"))
    assert pack(f"{name}:samples", "--overwrite") == 1
    error = capsys.readouterr().err
    assert error.startswith(f"python -m torch_s3io: {name}:samples: sample 17")
    assert text.replace("NAME.py", f"{name}.py").replace("\n", "\\n") in error
    assert error.count("\n") == 1
    if holds_one:
        assert value_of_samples(disk / "out") == 1
        check_clean(disk / "out")
    else:
        assert not (disk / "out").exists()


NOT_SOURCES = """
    number, empty, tuples, text = 5, [], [(1, 2)], "text"
    lists, nothing, wrong_name = [{"x": [1, 2]}], [{"x": None}], [{5: 1}]
    no_fields = [{}]

    def needs(argument):
        yield {}

    def fails():
        raise OSError("disk")

    async def later():
        yield {}

    class FailsToIterate:
        def __iter__(self):
            raise KeyError("x")

    fails_to_iterate = FailsToIterate()
"""


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("number", "an iterable of dicts is expected, or a function that gives one"),
        ("later", "such as a generator, not async_generator"),
        ("needs", "cannot be: missing a required argument: 'argument'; name a function that needs"),
        ("fails", "the call failed: OSError: disk (NAME.py, line 12, in fails)"),
        ("fails_to_iterate", "iter() failed: KeyError: 'x' (NAME.py, line 19, in __iter__)"),
        ("empty", "gives no samples"),
        ("tuples", "sample 0: a dict is expected, such as {'image': ..., 'label': ...}, not tuple"),
        ("text", "sample 0: a dict is expected"),
        ("lists", "sample 0, field 'x': list is not stored as it is: numpy.asarray("),
        ("nothing", "sample 0, field 'x': NoneType is not stored as it is"),
        ("wrong_name", "5 is no name of a field"),
        ("no_fields", "fields= is a dict of the fields"),
        ("numbers", "did you mean number?"),
        ("entirely_else", "has no entirely_else: it has number, empty, tuples, text"),
    ],
)
def test_what_is_no_source_is_one_line_and_makes_no_folder(disk, module, capsys, name, text):
    made = module(NOT_SOURCES)
    assert pack(f"{made}:{name}") == 1
    output = capsys.readouterr()
    assert text.replace("NAME", made) in output.err
    assert made in output.err
    assert (output.err.count("\n"), output.out) == (1, "")
    assert not (disk / "out").exists()


def test_a_module_that_cannot_be_imported_is_named(disk, module, capsys):
    for source, text in [
        ("import a_module_that_is_nowhere", "No module named 'a_module_that_is_nowhere' (NAME.py"),
        (
            "def samples(:",
            "NAME: cannot be imported: SyntaxError: invalid syntax (NAME.py, line 3)",
        ),
        ("1 / 0", "ZeroDivisionError: division by zero (NAME.py, line 3, in <module>)"),
        ("raise SystemExit(3)", "NAME: cannot be imported: SystemExit: 3"),
    ]:
        name = module(source)
        assert pack(f"{name}:samples") == 1
        assert text.replace("NAME", name) in capsys.readouterr().err
    assert pack(f"{name}0:samples") == 1
    error = capsys.readouterr().err
    assert f"there is no module {name}0: did you mean made_samples_" in error
    assert f"It is looked for in {disk}" in error
    for place, example in [
        ("mydata", "mydata:samples"),
        ("./sub/mydata.py:x", "sub.mydata:samples"),
        (":x", "mydata:samples"),
    ]:
        assert pack(place) == 1
        error = capsys.readouterr().err
        assert f"--from {place}: is not MODULE:NAME" in error
        assert example in error


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ("label", "--field label: is not NAME=KIND, as in image=bytes"),
        ("=int8", "is not NAME=KIND"),
        ("x=", "is not NAME=KIND"),
        ("x=uint8[n", "is not NAME=KIND"),
        ("x=uint8[x]", "'x' is no length of an axis: give a number, or n"),
        ("x=uint8[]", "'' is no length of an axis"),
        ("x=uint8[-1]", "'-1' is no length"),
        ("x=uint8[0]", "--field x=uint8[0]: 'x': every entry of its shape"),
        ("x=uint9", "--field x=uint9: 'x': 'uint9' is not a dtype"),
        ("x=bytes[3]", "bytes and str have no shape"),
    ],
)
def test_a_field_that_is_no_field_is_refused(module, capsys, field, text):
    assert pack(f"{module(MIXED)}:samples", "--field", field) == 1
    assert text in capsys.readouterr().err


def test_options_that_do_not_go_together_are_wrong_usage(module, capsys):
    place = f"{module(MIXED)}:samples"
    for arguments, text in [
        (["--from", place, "x.npy"], "--from takes no SOURCE: leave out x.npy"),
        (["--from", place, "--window", "3"], "--window is for files, without --from"),
        (["--from", place, "--header-bytes", "3"], "--header-bytes is for files"),
        (["x.npy", "--field", "x=int8"], "--field is for samples, with --from"),
        ([], "there is nothing to pack: name a SOURCE, or --from MODULE:NAME"),
    ]:
        with pytest.raises(SystemExit) as ended:
            main(["pack", *arguments, "-o", "out"])
        assert ended.value.code == 2
        assert text in capsys.readouterr().err


def test_a_data_set_is_replaced_on_request_only_and_before_the_first_sample_is_made(
    disk, module, capsys
):
    write_samples(disk / "out", 1)
    assert pack(f"{module('samples = print')}:samples") == 1
    output = capsys.readouterr()
    assert "holds a data set of 500 samples in 4 shards already; --overwrite" in output.err
    assert output.out == ""  # the source was not called
    assert value_of_samples(disk / "out") == 1
    assert pack(f"{module(MIXED)}:samples", "--overwrite") == 0
    assert "replaced: 500 samples of " in capsys.readouterr().out
    assert len(read_samples(disk / "out")) == 40
    check_clean(disk / "out")


def test_ctrl_c_leaves_what_there_was(disk, module, capsys):
    for holds_one in (False, True):
        if holds_one:
            write_samples(disk / "out", 1)
        assert (
            pack(f"{module(of_sample_17('raise KeyboardInterrupt'))}:samples", "--overwrite") == 130
        )
        assert capsys.readouterr().err == (
            "python -m torch_s3io: interrupted; out has what it had before\n"
        )
        assert (disk / "out").exists() == holds_one
    assert value_of_samples(disk / "out") == 1
    check_clean(disk / "out")


def test_a_data_set_of_samples_is_no_source_of_files(disk, module, capsys):
    write_samples(disk / "set", 1)
    assert main(["pack", "set", "-o", "out"]) == 1
    assert "set: is packed already: SampleDataset('set') reads it" in capsys.readouterr().err
