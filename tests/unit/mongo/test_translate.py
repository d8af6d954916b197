"""What the driver raises, in our words."""

from __future__ import annotations

import pytest
from pymongo.errors import ConfigurationError

from agent.errors import NodeUnavailable
from agent.mongo.translate import translated


def test_a_node_that_was_removed_from_its_set_is_said_to_be_in_none() -> None:
    said = "Sessions are not supported by this MongoDB deployment"
    with (
        pytest.raises(NodeUnavailable, match="the node is in no replica set now"),
        translated("reading a.b"),
    ):
        raise ConfigurationError(said)
    with pytest.raises(NodeUnavailable, match="unknown option"), translated("reading a.b"):
        raise ConfigurationError("unknown option")
