"""Reading compiled programs: small texts in the spellings of XLA's compilers."""

import pytest

from polyglot_jax.plan import hlo

MESH = {"data": 2, "fsdp": 4, "tensor": 1}

PROGRAM = """\
HloModule jit_step, is_scheduled=true

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %sum = f32[] add(%a, %b)
}

%cond.1 (state: (s32[], bf16[8,4])) -> pred[] {
  %state = (s32[], bf16[8,4]) parameter(0)
  %bound = s32[]{:T(128)} constant(24)
  %i = s32[] get-tuple-element(%state), index=0
  ROOT %less = pred[] compare(%i, %bound), direction=LT
}

%body.1 (state.1: (s32[], bf16[8,4])) -> (s32[], bf16[8,4]) {
  %state.1 = (s32[], bf16[8,4]) parameter(0)
  %w = bf16[8,4]{1,0} get-tuple-element(%state.1), index=1
  %gather = (bf16[8,4]{1,0}, bf16[32,4]{1,0}) all-gather-start(%w), channel_id=1, replica_groups=[2,4]<=[8], dimensions={0}, metadata={op_name="jit(step)/layers/mlp"}, backend_config={"is_sync":false}
  %product = f32[8]{0} fusion(%w), kind=kLoop, calls=%add
  %done = bf16[32,4]{1,0} all-gather-done(%gather)
  %scatter = (bf16[32,4]{1,0}, bf16[8,4]{1,0}) reduce-scatter-start(%done), channel_id=2, replica_groups={{0,1,2,3},{4,5,6,7}}, dimensions={0}, to_apply=%add
  %scattered = bf16[8,4]{1,0} reduce-scatter-done(%scatter)
  ROOT %next = (s32[], bf16[8,4]) tuple(%w, %scattered)
}

%outer (s: (s32[], bf16[8,4])) -> (s32[], bf16[8,4]) {
  %s = (s32[], bf16[8,4]) parameter(0)
  ROOT %inner = (s32[], bf16[8,4]) while(%s), condition=%cond.1, body=%body.1
}

ENTRY %main (p: (s32[], bf16[8,4])) -> (s32[], bf16[8,4]) {
  %p = (s32[], bf16[8,4]) parameter(0)
  %v = f32[16]{0} constant({...})
  %u = f32[] constant(0)
  %all = (f32[16]{0}, f32[]) all-reduce(%v, %u), channel_id=3, replica_groups=mesh['axis_0'=2,'axis_1'=4] {'axis_0'}, to_apply=%add
  ROOT %loop = (s32[], bf16[8,4]) while(%p), condition=%cond.1, body=%outer, backend_config={"known_trip_count":{"n":"3"}}
}
"""  # noqa: E501


def test_collectives_of_nested_loops() -> None:
    gather, scatter, reduce = hlo.collectives(PROGRAM, MESH)
    assert (gather.kind, gather.axes, gather.times) == ("all-gather", ("fsdp",), 72)
    assert gather.shapes == ((32, 4),)  # gathered
    assert gather.bytes == 2 * 32 * 4
    assert gather.overlapped
    assert gather.op == "jit(step)/layers/mlp"
    assert (scatter.kind, scatter.axes, scatter.times) == ("reduce-scatter", ("fsdp",), 72)
    assert scatter.shapes == ((32, 4),)  # before it is scattered
    assert not scatter.overlapped
    assert (reduce.kind, reduce.axes, reduce.times) == ("all-reduce", ("data",), 1)
    assert reduce.bytes == 4 * 17


def test_steps_of_one_operation_of_the_tpu_compiler_count_once() -> None:
    line = "  %{} = bf16[32,4]{{1,0}} all-gather(%w), channel_id=7, replica_groups=[2,4]<=[8]\n"
    text = (
        "%async_collective_fusion.1 (w: bf16[8,4]) -> bf16[32,4] {\n" + line.format("a") + "}\n"
        "%fused.1 (w.1: bf16[8,4]) -> bf16[32,4] {\n" + line.format("b") + "}\n"
        "ENTRY %main (p: bf16[8,4]) -> bf16[32,4] {\n"
        "  %x = bf16[32,4] fusion(%p), kind=kCustom, calls=%fused.1\n"
        "  %y = bf16[32,4] fusion(%p), kind=kCustom, calls=%async_collective_fusion.1\n}\n"
    )
    (found,) = hlo.collectives(text, MESH)
    assert found.overlapped
    assert found.times == 1


@pytest.mark.parametrize(
    ("groups", "axes"),
    [
        ("{{0,4},{1,5},{2,6},{3,7}}", ("data",)),
        ("{{0,1,2,3,4,5,6,7}}", ("data", "fsdp")),
        ("{}", ("data", "fsdp")),  # all devices
        ("[2,4]<=[8]", ("fsdp",)),
        ("[4,2]<=[2,4]T(1,0)", ("data",)),
        ("mesh['axis_0'=2,'axis_1'=4] {'axis_1'}", ("fsdp",)),
        ("mesh['axis_0'=4,'axis_1'=2], device_ids=([2,4]T(1,0)) {'axis_0'}", ("fsdp",)),
        ("mesh['axis_0'=8] {'axis_0':(1)2}", ("data",)),
        ("mesh['axis_0'=8] {'axis_0':(2)4}", ("fsdp",)),
    ],
)
def test_replica_groups_in_each_spelling(groups: str, axes: tuple[str, ...]) -> None:
    line = f"  %r = f32[4]{{0}} all-reduce(%p), channel_id=1, replica_groups={groups}, to_apply=%a"
    text = f"ENTRY %main (p: f32[4]) -> f32[4] {{\n{line}\n}}\n"
    (found,) = hlo.collectives(text, MESH)
    assert found.axes == axes


@pytest.mark.parametrize(
    ("pairs", "axes"),
    [
        ("{{0,1},{1,2},{2,3},{3,0},{4,5},{5,6},{6,7},{7,4}}", ("fsdp",)),  # along the ring
        ("{{0,4},{4,0}}", ("data",)),
        ("{{0,5},{5,0}}", ("data", "fsdp")),
    ],
)
def test_axes_of_a_permute(pairs: str, axes: tuple[str, ...]) -> None:
    line = (
        "  %p = (f32[4]{0}, f32[4]{0}, u32[]) collective-permute-start(%x), channel_id=1, "
        f'source_target_pairs={pairs}, metadata={{op_name="a"}}'
    )
    text = f"ENTRY %main (x: f32[4]) -> f32[4] {{\n  %x = f32[4] parameter(0)\n{line}\n}}\n"
    (found,) = hlo.collectives(text, MESH)
    assert (found.kind, found.axes, found.shapes) == ("collective-permute", axes, ((4,),))


@pytest.mark.parametrize("has_work", [True, False])
def test_reductions_between_slices(has_work: bool) -> None:
    attributes = (
        "is_host_transfer=true, frontend_attributes={"
        '_xla_megascale_target="{1,2}x{0:3}",_xla_megascale_transfer_type="ALL_REDUCE"}'
    )
    lines = [
        "%x = bf16[16,4]{1,0} parameter(0)",
        "%t = token[] after-all()",
        f"%s = (bf16[16,4]{{1,0}}, u32[], token[]) send(%x, %t), channel_id=6, {attributes}",
        f"%r = (bf16[16,4]{{1,0}}, u32[], token[]) recv(%t), channel_id=5, {attributes}",
        *(["%w = bf16[16,4]{1,0} fusion(%x), kind=kLoop, calls=%a"] if has_work else []),
        "%d = (bf16[16,4]{1,0}, token[]) recv-done(%r), channel_id=5, is_host_transfer=true",
    ]
    text = "ENTRY %main (x: bf16[16,4]) -> bf16[16,4] {\n  " + "\n  ".join(lines) + "\n}\n"
    (found,) = hlo.collectives(text, MESH, across=("data",))
    assert (found.kind, found.axes, found.shapes) == ("all-reduce", ("data",), ((16, 4),))
    assert (found.bytes, found.times, found.overlapped) == (128, 1, has_work)


@pytest.mark.parametrize(
    ("line", "kernel"),
    [
        ('custom_call_target="__cudnn$fmhaSoftmax"', "cudnn"),
        ('%splash_mha_fwd.1 = custom-call(%q), custom_call_target="tpu_custom_call"', "splash"),
        ('%c = bf16[8] custom-call(%q), metadata={op_name="jit(f)/mha_backward"}', "triton"),
        ("%dot = f32[2,2] dot(%a, %b)", "xla"),
    ],
)
def test_attention_kernel(line: str, kernel: str) -> None:
    assert hlo.attention_kernel(line) == kernel
