"""What counts as a difference between processes."""

from zoo.training import agreement
from zoo.training.agreement import check_agreement, code, differences, statement
from zoo.training.setup import build


def test_a_process_agrees_with_itself_and_may_read_in_its_own_way(config, splits):
    mine = statement(build(config, splits))
    config.data.data_dir = "/somewhere/else"
    config.data.threads = 9
    assert differences(mine, statement(build(config, splits))) == []


def test_each_difference_is_named_with_both_values(config, splits):
    theirs = statement(build(config, splits))
    config.optimizer.learning_rate = 0.5
    other = splits._replace(test=splits.validation)
    texts = differences(theirs, statement(build(config, other)))
    assert texts[0] == "config.optimizer.learning_rate is 0.5, on process 0 it is 0.002"
    assert texts[1].startswith("data test split is '")
    assert len(texts) == 2


def test_all_code_is_compared(config, splits, monkeypatch):
    digests = code()
    assert {"zoo/layers.py", "zoo/training/loop.py", "zoo/__init__.py"} <= set(digests)
    theirs = statement(build(config, splits))
    monkeypatch.setattr(agreement, "code", lambda: {**digests, "zoo/new.py": "0123"})
    assert differences(theirs, statement(build(config, splits))) == [
        "zoo/new.py is '0123', on process 0 it is not there"
    ]


def test_many_differences_are_counted():
    theirs = {"config": {f"config.{i}": 0 for i in range(9)}}
    texts = differences(theirs, {"config": {f"config.{i}": 1 for i in range(9)}})
    assert len(texts) == 4
    assert texts[-1] == "and 6 more of config"


def test_one_process_asks_nobody(config, splits, tmp_path):
    check_agreement(build(config, splits), tmp_path / "not made")
    assert not (tmp_path / "not made").exists()
