"""The grammar of sites, what they select, and what a wrong one is answered."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from networks_zoo import Lstm, batch, build, draw, padding, tokens
from torch import Tensor, nn

from heldout.activations.edits import Edit
from heldout.activations.sites import EVERY, VIEWS, Arguments, Site, finite, pick, position_mask, put
from heldout.activations.tap import Reading, Tap
from heldout.errors import NetworkError, NonFiniteError, SiteError

KEYS = st.one_of(st.integers(-9, 9), st.from_regex(r"[a-z_]+", fullmatch=True))


@given(
    path=st.from_regex(r"\.|[a-z_]\w*(\.\w+)*", fullmatch=True),
    call=st.one_of(st.none(), st.integers(0, 99), st.just(EVERY)),
    place=st.one_of(
        st.tuples(st.just("output"), st.lists(KEYS, max_size=3)),
        st.tuples(st.just("input"), st.lists(KEYS, min_size=1, max_size=3)),
        st.tuples(
            st.sampled_from(["query", "key", "value", "scores", "pattern"]), st.lists(st.integers(-9, 9), max_size=1)
        ),
    ),
    view=st.sampled_from(VIEWS),
)
def test_a_site_is_its_string(path: str, call: int | None, place: tuple[str, list[int | str]], view: str) -> None:
    site = Site(path, place[0], call, tuple(place[1]), view)
    assert Site.parse(str(site)) == site
    assert str(Site.parse(str(site))) == str(site)


def test_examples_of_the_grammar() -> None:
    assert Site.parse("a.b") == Site("a.b")
    assert Site.parse("a:input") == Site.parse("a:input[0]") == Site("a", "input", None, (0,))
    assert Site.parse("a#*@attn.query[1]@last") == Site("a", "query", EVERY, (1,), "last")
    assert Site.parse("a[x]['y'][-1]@flat") == Site("a", "output", None, ("x", "y", -1), "flat")
    assert Site.parse(Site("a")) == Site("a")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "cannot be read"),
        ("a b", "cannot be read"),
        ("a#x", "cannot be read"),
        ("a[", "cannot be read"),
        ("a:output", "cannot be read"),
        ("a@attn.keys", "unknown part of attention 'keys'; choose from query, key"),
        ("a:input@attn.key", "':input' and '@attn.key' exclude"),
        ("a@chanels", "unknown view 'chanels'; choose from auto, last, channels"),
        ("a@attn.key[0][1]", "one selector names a head"),
    ],
)
def test_strings_that_are_no_site(text: str, message: str) -> None:
    with pytest.raises(SiteError, match=message.replace("[", r"\[")):
        Site.parse(text)


def read(name: str, *sites: str) -> Reading:
    case = build(name)
    with Tap(case.network, read=sites) as tap:
        return tap(case.batch)


@pytest.mark.parametrize(
    ("name", "site", "message"),
    [
        ("mlp", "hidden.0.lineal", r"unknown module 'hidden.0.lineal'; .*hidden\.0\.linear.* in MLP"),
        ("mlp", "hidden.0[0]", r"\[0\] selects from a tensor of shape \(3, 5\); leave it out"),
        ("lstm", "lstm", r"a tuple of 2, not a tensor; add a selector such as \[0\]"),
        ("lstm", "lstm[2]", r"no element \[2\] in lstm, which is a tuple of 2"),
        ("lstm", "lstm[1][7]", r"no element \[7\] in lstm\[1\], which is a tuple of 2"),
        ("lstm", "lstm[states]", r"no element \[states\] in lstm"),
        ("packed", "inner", r"a dict with keys pair, shifted, not a tensor; add a selector such as \[pair\]"),
        ("packed", "inner[pears]", r"no element \[pears\] in inner, which is a dict with keys pair, shifted"),
        ("packed", "inner:input[mask]", r"no element \[mask\] in inner, which is a call with arguments 0, shift"),
        ("cnn", "gather:input", r"@channels \(dimension 1\), gather:input\[0\]@last or gather:input\[0\]@flat"),
        ("twice", "act", r"runs more than once in a pass; name one call \(act#0, act#1, ...\)"),
        ("tied", "a", "runs more than once"),
        ("twice", "act#2", "it ran 2 times; calls are counted from 0"),
        ("mha", "attn.out_proj", "the module did not run in this pass"),
        ("mlp", "hidden.0@attn.query", "no scaled_dot_product_attention was called inside it"),
        ("transformer", "blocks.0.attn@attn.query[2]", "head 2 of 2"),
        ("transformer", "blocks.0.attn@attn.query[-3]", "head -3 of 2"),
        ("transformer", ".@attn.query", "runs more than once"),
        ("llama sdpa", "model.layers.0.self_attn@attn.key[4]", "head 4 of 2"),
    ],
)
def test_places_that_do_not_exist(name: str, site: str, message: str) -> None:
    edit = Edit.identity([site]).functions
    case = build(name)
    with pytest.raises(SiteError, match=message), Tap(case.network, read=[site], edit=edit) as tap:
        tap(case.batch)


def test_a_view_is_asked_for_where_an_edit_would_have_to_guess() -> None:
    case = build("cnn")
    with (
        pytest.raises(SiteError, match="say where its features are"),
        Tap(case.network, edit=Edit.identity(["blocks.0.act"]).functions) as tap,
    ):
        tap(case.batch)


def test_attention_without_heads_has_none_to_select() -> None:
    class Bare(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.scaled_dot_product_attention(x, x, x)

    with Tap(Bare(), read=[".@attn.query"]) as tap:
        assert tap(batch(draw(3, 4, 5)))[".@attn.query"].shape == (3, 4, 5)
    with pytest.raises(SiteError, match="head 0 of 0"), Tap(Bare(), read=[".@attn.query[0]"]) as tap:
        tap(batch(draw(3, 4, 5)))


def test_reading_gives_the_tensors_that_the_network_sees() -> None:
    case = build("cnn in place")
    x, (conv, norm, _, last) = case.batch.inputs, case.network.body
    with torch.no_grad():
        first = conv(x)
        normed = norm(first)
        second = last(normed.relu())
    reading = read("cnn in place", "body.0", "body.1", "body.2", "body.3", "body", ".:input")
    for site, expected in (("body.0", first), ("body.1", normed), ("body.2", normed.relu()), ("body.3", second)):
        assert torch.equal(reading[site], expected), site  # as they were, before the network changed them in place
    assert torch.equal(reading[".:input"], x)


def test_reading_by_call() -> None:
    case = build("twice")
    net, x = case.network, case.batch.inputs
    with torch.no_grad():
        a = net.act(net.first(x))
        b = net.act(net.middle(a))
    reading = read("twice", "act#0", "act#1", "act#*", "middle#1")
    assert torch.equal(reading["act#0"], a)
    assert torch.equal(reading["act#1"], b)
    assert [v.tolist() for v in reading.values["act#*"]] == [a.tolist(), b.tolist()]
    with pytest.raises(SiteError, match="was read 2 times"):
        reading["act#*"]
    with pytest.raises(SiteError, match=r"unknown site 'act#3'; choose from act#0"):
        reading["act#3"]


def test_an_edit_of_one_call_leaves_the_other() -> None:
    case = build("twice")
    net, x = case.network, case.batch.inputs
    with torch.no_grad():
        a, b = net.act(net.first(x)), None
        b = net.act(net.middle(2 * a))
        only_first = net.last(net.middle(b))
        only_second = net.last(net.middle(2 * net.act(net.middle(a))))
        both = net.last(net.middle(2 * b))
    for site, expected in (("act#0", only_first), ("act#1", only_second), ("act#*", both)):
        with Tap(net, edit={site: lambda rows, mask: rows * 2}) as tap:
            assert torch.allclose(tap(case.batch).output, expected), site


def test_nested_outputs_are_replaced_where_the_selector_points() -> None:
    case = build("packed")
    with torch.no_grad():
        x, linear = case.batch.inputs, case.network.inner.linear(case.batch.inputs)
        top = (x + 1).max(-1)
        parts = {"inner[pair][0]": linear, "inner[pair][1][0]": 20 * x, "inner[shifted]": 100 * (x + 1)}
        rest = top.values[:, None] + top.indices.sum()
    with torch.no_grad():
        whole = case.network(x)
    assert torch.allclose(whole, sum(parts.values()) + rest)
    for site in ("inner[pair][0]", "inner[pair][-2]", "inner[pair][1][0]"):
        with Tap(case.network, edit={site: lambda rows, mask: torch.zeros_like(rows)}) as tap:
            got = tap(case.batch).output
        gone = parts[site.replace("-2", "0")]
        assert torch.allclose(got, whole - gone, atol=1e-5), site
    with Tap(case.network, edit={"largest[0]": lambda rows, mask: rows + 7}) as tap:  # a torch.return_types tuple
        assert torch.allclose(tap(case.batch).output, whole + 7)
    for site in ("inner:input[shift]", "inner:input[1]", "inner:input[-1]"):
        with Tap(case.network, edit={site: lambda rows, mask: rows + 1}) as tap:
            got = tap(case.batch).output
        assert torch.allclose(got, whole + 101, atol=1e-4), site


def test_output_classes_and_odd_mappings_keep_their_kind() -> None:
    outputs = pytest.importorskip("transformers.modeling_outputs", reason="transformers is not installed")
    x = torch.ones(2, 3)
    value = outputs.BaseModelOutput(last_hidden_state=x, hidden_states=(x, 2 * x))
    for site in ("m[hidden_states][1]", "m[1][1]"):
        new = put(value, Site.parse(site), 5 * x)
        assert type(new) is type(value)
        assert new.hidden_states[1].equal(5 * x)
        assert new[0].equal(x)
        assert value.hidden_states[1].equal(2 * x)
    swapped = put({1: x, 0: 2 * x}, Site.parse("m[0]"), 7 * x)
    assert swapped[1].equal(x)
    assert swapped[0].equal(7 * x)
    with pytest.raises(SiteError, match="cannot replace"):
        put({"a": b"raw"} and _Odd(x), Site.parse("m[0]"), 7 * x)
    arguments = Arguments((x,), {"a": 2 * x, "b": 3 * x})
    assert arguments.replaced(-1, 9).kwargs["b"] == 9
    assert arguments.replaced(-3, 9).args == (9,)
    assert len(arguments) == 3
    assert list(arguments) == [0, "a", "b"]


class _Odd:
    def __init__(self, x: Tensor) -> None:
        self.x = x

    def __getitem__(self, i: int) -> Tensor:
        return self.x


def test_lstm_elements() -> None:
    for case, transpose in ((build("lstm"), False), (build("lstm time first"), True)):
        assert isinstance(case.network, Lstm)
        x = case.batch.inputs
        with torch.no_grad():
            states, (hidden, cell) = case.network.lstm(x.transpose(0, 1) if transpose else x)
        with Tap(case.network, read=["lstm[0]", "lstm[1][0]", "lstm[1][1]"]) as tap:
            reading = tap(case.batch)
        assert torch.equal(reading["lstm[0]"], states)
        assert torch.equal(reading["lstm[1][0]"], hidden)
        assert torch.equal(reading["lstm[1][1]"], cell)


def test_views_put_features_last_and_back() -> None:
    case = build("cnn")
    x = case.batch.inputs
    with torch.no_grad():
        conv = case.network.blocks[0].conv(x)
    shapes = {}
    for view, shape in (
        ("channels", (3, 8, 8, 3)),
        ("flat", (3, 192)),
        ("last", (3, 3, 8, 8)),
        ("time_first", (3, 3, 8, 8)),
    ):

        def scaled(rows: Tensor, mask: Tensor | None, view: str = view) -> Tensor:
            shapes[view] = tuple(rows.shape)
            return rows * torch.arange(1.0, rows.shape[-1] + 1)

        with Tap(case.network, read=["blocks.0.conv"], edit={f"blocks.0.conv@{view}": scaled}) as tap:
            got = tap(case.batch)["blocks.0.conv"]
        assert shapes[view] == shape
        assert got.shape == conv.shape
        if view == "channels":
            assert torch.allclose(got, conv * torch.tensor([1.0, 2, 3])[:, None, None])
        if view == "flat":
            assert torch.allclose(got.flatten(1), conv.flatten(1) * torch.arange(1.0, 193))
    with Tap(case.network, edit={"blocks.0.conv": scaled}) as tap:
        tap(case.batch)
    with (
        pytest.raises(SiteError, match=r"expected"),
        Tap(case.network, edit={"blocks.0.conv@channels": lambda rows, mask: rows.movedim(-1, 1)}) as tap,
    ):
        tap(case.batch)


@pytest.mark.parametrize(
    ("function", "error", "message"),
    [
        (lambda rows, mask: rows[:1], SiteError, r"returned shape \(1, 5\); a tensor of shape \(3, 5\) was expected"),
        (lambda rows, mask: None, SiteError, "returned a NoneType"),
        (lambda rows, mask: rows / 0, NonFiniteError, "NaN or infinite"),
        (lambda rows, mask: rows * float("nan"), NonFiniteError, "the edit at site hidden.0"),
        (lambda rows, mask: rows.mul_(2), SiteError, "changed its argument in place"),
        (lambda rows, mask: rows @ torch.ones(7, 5), SiteError, "the edit at site hidden.0 failed: RuntimeError"),
    ],
)
def test_edits_that_are_not_accepted(function: object, error: type[Exception], message: str) -> None:
    case = build("mlp")
    with pytest.raises(error, match=message), Tap(case.network, edit={"hidden.0": function}) as tap:  # type: ignore[dict-item]
        tap(case.batch)


def test_an_edit_in_double_precision_returns_to_the_networks() -> None:
    case = build("mlp")
    with Tap(case.network, read=["hidden.0"], edit={"hidden.0": lambda rows, mask: rows.double()}) as tap:
        assert tap(case.batch)["hidden.0"].dtype == torch.float32


def test_a_failing_network_names_the_batch() -> None:
    case = build("mlp")
    with (
        pytest.raises(NetworkError, match=r"MLP failed on a batch of 3 items \(numbers 0 to 2 .*RuntimeError"),
        Tap(case.network) as tap,
    ):
        tap(batch(draw(3, 7)))


def test_finite_is_exact() -> None:
    assert finite(torch.full((1000,), 6e4, dtype=torch.float16))  # whose sum overflows
    assert finite(torch.full((10,), 3e38))
    assert finite(torch.arange(3))
    for bad in (float("nan"), float("inf"), -float("inf")):
        assert not finite(torch.tensor([1.0, bad]))
    assert not finite(torch.tensor([float("inf"), -float("inf")]))


def test_position_masks() -> None:
    mask = padding()  # (3, 6)
    here, inside = Site("m"), Site("m", "query")
    assert position_mask(None, torch.ones(3, 6, 4), here) is None
    assert position_mask(mask, torch.ones(3, 4), here) is None
    assert torch.equal(position_mask(mask, torch.ones(3, 6, 4), here), mask)
    heads = position_mask(mask, torch.ones(3, 6, 2, 4), here)  # a module's (B, T, H, d)
    assert torch.equal(heads, mask[:, :, None].expand(3, 6, 2))
    assert torch.equal(position_mask(mask, torch.ones(3, 6, 6, 4), here), mask[:, :, None].expand(3, 6, 6))
    assert torch.equal(position_mask(mask, torch.ones(3, 6, 6, 4), inside), mask[:, None].expand(3, 6, 6))
    assert torch.equal(position_mask(mask, torch.ones(3, 2, 6, 4), inside), mask[:, None].expand(3, 2, 6))
    assert torch.equal(position_mask(mask, torch.ones(3, 6, 4), Site("m", "key", select=(0,))), mask)
    assert position_mask(mask, torch.ones(3, 2, 4), here) is None
    assert position_mask(mask, torch.ones(2, 3, 4), here) is None  # layers first, as an LSTM's last state
    with pytest.raises(SiteError, match="m@time_first"):
        position_mask(mask, torch.ones(6, 3, 4), here)
    assert position_mask(mask, torch.ones(6, 3, 4), Site("m", view="last")) is None


def test_pick_leaves_tokens_alone() -> None:
    with pytest.raises(SiteError, match="not a tensor"):
        pick(3, Site("m"))
    assert pick((tokens(2, 2),), Site.parse("m[0]")).dtype == torch.int64


def test_behind_a_convolution_over_time_an_activation_must_say_where_its_features_are() -> None:
    """(B, C, L) and (B, T, D) look alike: a network with such convolutions is asked, any other is not."""
    network = nn.Sequential(nn.Conv1d(4, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 5, 2)).eval()
    data = batch(draw(3, 4, 7))
    seen = {}

    def note(rows: Tensor, mask: Tensor | None) -> Tensor:
        seen["rows"] = tuple(rows.shape)
        return rows.clone()

    with pytest.raises(SiteError, match=r"1@channels \(dimension 1\), 1@last"), Tap(network, edit={"1": note}) as tap:
        tap(data)
    for site, shape in {"0": (3, 5, 6), "1@channels": (3, 5, 6), "1@last": (3, 6, 5), "3": (3, 2)}.items():
        with Tap(network, edit={site: note}) as tap:
            tap(data)
        assert seen["rows"] == shape, site
    plain = nn.Sequential(nn.Linear(7, 6), nn.ReLU()).eval()
    with Tap(plain, edit={"1": note}) as tap:
        tap(data)
    assert seen["rows"] == (3, 4, 6)


def test_what_holds_its_features_last_says_so_even_behind_a_convolution() -> None:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.front, self.norm, self.up = nn.Conv1d(4, 6, 3), nn.LayerNorm(6), nn.Linear(6, 8)

        def forward(self, x: Tensor) -> Tensor:
            return self.up(self.norm(self.front(x).transpose(1, 2)))

    network, shapes = Mixed().eval(), {}
    for site in ("front", "norm", "up", "up:input"):

        def note(rows: Tensor, mask: Tensor | None, site: str = site) -> Tensor:
            shapes[site] = tuple(rows.shape)
            return rows.clone()

        with Tap(network, edit={site: note}) as tap:
            tap(batch(draw(3, 4, 7)))
    assert shapes == {"front": (3, 5, 6), "norm": (3, 5, 6), "up": (3, 5, 8), "up:input": (3, 5, 6)}
