"""A DICOM node that cannot listen: the fault is told, the rest of the service goes on, and it is tried again."""

from __future__ import annotations

import socket

from spinescore.runtime.appliance.configuration.config import Node, Peer
from spinescore.runtime.appliance.service import _Node


def node_at(appliance, host: str, port: int) -> _Node:
    changes = {"node": Node(host=host, port=port), "peer": (Peer("XRAY", "127.0.0.1"),)}
    config = type(appliance.config)(**{**vars(appliance.config), **changes})
    return _Node(config, appliance.places, appliance.clock, appliance.spool)


def test_a_port_in_use_is_a_fault_and_taken_when_it_is_free(make):
    appliance = make()
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        node = node_at(appliance, "127.0.0.1", port)
        (fault,), _ = node.step()
        assert fault.code == "node-unavailable"
        assert fault.message == f"the node cannot listen at 127.0.0.1 port {port} (Address already in use)"
        assert node.step() == ([], {})  # it is not tried at once again
        appliance.clock.pass_s(6.0)
        assert [one.code for one in node.step()[0]] == ["node-unavailable"]
    appliance.clock.pass_s(6.0)
    assert node.step() == ([], {})
    with socket.create_connection(("127.0.0.1", port)):
        pass
    node._receiver.stop()


def test_an_address_that_is_not_this_machines_is_a_fault(make):
    node = node_at(make(), "192.0.2.1", 11112)
    (fault,), _ = node.step()
    assert fault.code == "node-unavailable"
    assert "192.0.2.1" in fault.message


def test_without_a_node_nothing_is_started(make):
    appliance = make()
    node = _Node(appliance.config, appliance.places, appliance.clock, appliance.spool)
    assert (node.step(), node.associations) == (([], {}), 0)
