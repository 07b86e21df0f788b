"""A client can't leave a limit behind by changing an address within its own network."""

import pytest

from shared.addresses import limited_as


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("2001:db8::1", "2001:db8::ffff:2"),
        ("2001:db8:0:0::1", "2001:0db8::2"),
        ("::ffff:203.0.113.5", "203.0.113.5"),
        ("::FFFF:203.0.113.5", "203.0.113.5"),
    ],
)
def test_addresses_of_one_host_count_as_one(one, other):
    assert limited_as(one) == limited_as(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [("203.0.113.5", "203.0.113.6"), ("2001:db8::1", "2001:db8:0:1::1"), ("::ffff:203.0.113.5", "203.0.113.6")],
)
def test_addresses_of_different_hosts_count_apart(one, other):
    assert limited_as(one) != limited_as(other)


def test_what_is_no_address_counts_as_itself():
    assert limited_as("unix") == "unix"
    assert limited_as("") == ""
