"""What a search takes for a transformer."""

from edgewise.export import export
from edgewise.graph import Graph, fold, trainable
from edgewise.search.kinds import of_tokens
from edgewise.testing import encoder_graphs, graphs, nets


def test_an_encoder_is_of_tokens_and_a_network_of_pictures_or_numbers_is_not() -> None:
    assert of_tokens(fold(trainable(encoder_graphs.encoder())))
    assert not of_tokens(Graph.from_proto(graphs.mlp()[0]))
    assert not of_tokens(export(nets.mobilenet_like(), nets.example("mobilenet_like")))
