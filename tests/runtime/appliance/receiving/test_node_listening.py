"""A DICOM node that cannot listen: the fault is told, the rest of the service goes on, and it is tried again."""

from __future__ import annotations

import socket
from dataclasses import replace

from spinescore.runtime.appliance.configuration.config import Node, Peer
from spinescore.runtime.appliance.receiving.node import DicomNode


def node_at(appliance, host: str, port: int) -> DicomNode:
    config = replace(appliance.config, node=Node(host=host, port=port), peer=(Peer("XRAY", "127.0.0.1"),))
    return DicomNode(config, config.node, appliance.places, appliance.clock)


def test_a_port_in_use_is_a_fault_and_taken_when_it_is_free(make):
    appliance = make()
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        node = node_at(appliance, "127.0.0.1", port)
        (fault,), _ = node.step(appliance.spool)
        assert fault.code == "node-unavailable"
        assert fault.message == f"the node cannot listen at 127.0.0.1 port {port} (Address already in use)"
        assert node.step(appliance.spool) == ([], {})  # it is not tried at once again
        appliance.clock.pass_s(6.0)
        assert [one.code for one in node.step(appliance.spool)[0]] == ["node-unavailable"]
    appliance.clock.pass_s(6.0)
    assert node.step(appliance.spool) == ([], {})
    with socket.create_connection(("127.0.0.1", port)):
        pass
    node._receiver.stop()


def test_an_address_that_is_not_this_machines_is_a_fault(make):
    appliance = make()
    node = node_at(appliance, "192.0.2.1", 11112)
    (fault,), _ = node.step(appliance.spool)
    assert fault.code == "node-unavailable"
    assert "192.0.2.1" in fault.message
