import pytest

from benchmarks.hlo import Array, arrays, collectives, computations, estimated_cycles, hbm_bytes

# Of a program for v5e, shortened: a fusion, a copy into on-chip memory, slices of one that are
# joined there, and two all-reduces, of which one is asynchronous.
PROGRAM = """HloModule jit_step, is_scheduled=true

%fused (p: bf16[128,64]) -> bf16[128,64] {
  %p = bf16[128,64]{1,0} parameter(0)
  ROOT %n = bf16[128,64]{1,0} negate(%p)
}

ENTRY %main (a: bf16[128,64], b: f32[256]) -> bf16[128,64] {
  %a = bf16[128,64]{1,0:T(8,128)(2,1)} parameter(0)
  %b = f32[256]{0:T(256)} parameter(1)
  %copy-start = (f32[256]{0:T(256)S(1)}, f32[256]{0:T(256)}, u32[]{:S(2)}) copy-start(%b)
  %copy-done = f32[256]{0:T(256)S(1)} copy-done(%copy-start)
  %s = (bf16[128,64]{1,0}, bf16[64,64]{1,0:S(1)}, s32[]{:S(2)}) slice-start(%a), slice={[0:64]}
  %t = (bf16[128,64]{1,0}, bf16[64,64]{1,0:S(1)}, s32[]{:S(2)}) slice-start(%a), slice={[64:128]}
  %sd = bf16[64,64]{1,0:S(1)} slice-done(%s)
  %td = bf16[64,64]{1,0:S(1)} slice-done(%t)
  %both = bf16[128,64]{1,0:S(1)} custom-call(%sd, %td), custom_call_target="ConcatBitcast"
  %f = bf16[128,64]{1,0:T(8,128)} fusion(%both), calls=%fused, config={"estimated_cycles":"100"}
  %r = (f32[256]{0:S(1)}, f32[8]{0}) all-reduce(%copy-done, %b), config={"estimated_cycles":"11"}
  %g-start = (f32[256]{0}, f32[1024]{0}) all-gather-start(%b), dimensions={0}
  %g = f32[1024]{0} all-gather-done(%g-start)
  ROOT %g2 = bf16[128,64]{1,0:T(8,128)} negate(%f)
}
"""


def test_arrays_know_their_size_and_memory():
    assert arrays("f32[]") == (Array(4, False),)
    assert arrays("pred[3,5]{1,0:S(1)}") == (Array(15, True),)
    assert [a.bytes for a in arrays("(bf16[2,3]{1,0}, s8[7], f8e4m3fn[4])")][:2] == [12, 7]


def test_what_crosses_to_slow_memory_counts_once():
    a, b = 128 * 64 * 2, 256 * 4
    wanted = (
        b  # copied in
        + 2 * a // 2  # sliced in; that the slices are joined costs nothing
        + a  # the fusion reads fast memory and writes slow memory
        + (b + 8 * 4)  # all-reduce: b comes from slow memory, and f32[8] goes there
        + (b + b + 4 * b)  # the gather reads b, and puts out its operand and the result
        + 2 * a  # the last line
    )
    assert hbm_bytes(PROGRAM) == wanted


def test_collectives_are_counted_by_kind_and_size():
    assert collectives(PROGRAM) == {"all-reduce": (1, 2048), "all-gather": (1, 4096)}


def test_cycles_are_added_up_or_unknown():
    assert estimated_cycles(PROGRAM) == 111
    assert estimated_cycles(PROGRAM.replace("estimated_cycles", "other")) is None


def test_all_computations_are_found():
    found = dict(computations(PROGRAM))
    assert list(found) == ["fused", "ENTRY"]
    assert [line.opcode for line in found["fused"]] == ["parameter", "negate"]
    assert found["ENTRY"][-1].operands == ("f",)


def test_a_text_that_is_cut_off_is_refused():
    cut = PROGRAM.replace("negate(%f)", "negate(%f")
    with pytest.raises(ValueError, match="no end of the bracket"):
        list(computations(cut))
