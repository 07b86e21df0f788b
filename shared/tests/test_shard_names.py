"""Shard names: nothing that isn't exactly one is ever taken for one."""

import pytest

from shared.shards import ShardName, ShardNameError, new_database_name, shard_password


def test_a_new_name_is_a_shard_of_any_server_and_never_the_same():
    names = {new_database_name() for _ in range(100)}
    assert len(names) == 100
    assert all(ShardName.parse(f"a/{name}") == ("a", name) for name in names)
    assert str(ShardName("b-2", "shard_0123456789")) == "b-2/shard_0123456789"


@pytest.mark.parametrize(
    "text",
    ["", "a", "a/", "/shard_0123456789", "a/postgres", "a/shard_", "A/shard_0123456789", "a/shard_0123456789/x",
     "a/shard_0123456789\n", "a/shard_01234\0567", "a/shard_0123456789;--", "../shard_0123456789",
     "a/shard_" + "0" * 60],
)  # fmt: skip
def test_what_is_no_shard_name_is_an_error_and_never_a_default(text):
    with pytest.raises(ShardNameError):
        ShardName.parse(text)


def test_passwords_differ_by_database_and_by_key():
    passwords = {shard_password(key, database) for key in (b"1", b"2") for database in ("shard_a", "shard_b")}
    assert len(passwords) == 4
    assert all(len(password) == 64 for password in passwords)
