using NativeLora.Devices;
using NativeLora.Graphs;
using NativeLora.Ops;
using NativeLora.Tensors;

namespace NativeLora.Cuda.Tests.Products;

[Collection(Cuda.Collection)]
public class GroupedTests
{
    // By number: plain, plain of another rank, DoRA, with a bias of its own, a whole weight; 5 acts elsewhere.
    private static readonly BankSlot[] s_slots =
        [new(0, 4, 0.5f), new(1, 3, 2), new(2, 5, 1, UseDora: true), new(3, 2, 1, OwnBias: true), new(4, 0, 1, InFull: true)];

    private static readonly int[] s_cuSeqlens = [0, 3, 4, 9, 16, 18, 25, 31, 33];

    public static TheoryData<int[]> Batches() => new(
        [0, 0, 0, 0, 0, 0, 0, 0],
        [-1, -1, -1, -1, -1, -1, -1, -1],
        [2, 2, 2, 2, 2, 2, 2, 2],
        [0, 1, -1, 2, 0, 3, 4, 1],
        [5, 1, 1, 4, 2, 2, 0, 5]);

    [CudaTheory]
    [MemberData(nameof(Batches))]
    public void LinearIsTheCpus(int[] adapters)
    {
        foreach (var type in new[] { ElementType.F32, ElementType.BF16 })
            for (var addend = 0; addend < 2; addend++)
                foreach (var fan in new[] { false, true })
                    Linear(adapters, type, addend, fan);
    }

    [CudaFact]
    public void LinearMayLieWhereItsAddendLies()
    {
        foreach (var type in new[] { ElementType.F32, ElementType.BF16 })
            Linear([0, 1, -1, 3, 0, 3, 4, 1], type, 2, false);
    }

    [CudaTheory]
    [MemberData(nameof(Batches))]
    public void EmbeddingIsTheCpus(int[] adapters)
    {
        const int width = 19, vocabulary = 11;
        foreach (var type in new[] { ElementType.F32, ElementType.BF16 })
            foreach (var over in new[] { false, true })
            {
                var slots = s_slots[..2];
                var tokens = s_cuSeqlens[^1];
                var (sum, y) = (OpCase.Tokens("sum", width, type), OpCase.Tokens("y", width, type));
                var test = Segmented(new OpCase(new GroupedEmbeddingOp(slots, 1.5f), Size()), adapters)
                    .In(OpCase.Ints("ids", Shape.PerToken(1)), [.. Enumerable.Range(0, tokens).Select(t => t * 7 % vocabulary)])
                    .In(sum, Values.Brain(tokens * width, 1));
                foreach (var slot in slots)
                    test.In(OpCase.Parameter($"a{slot.Adapter}", slot.Rank, vocabulary), Values.Brain(slot.Rank * vocabulary, 2))
                        .In(OpCase.Parameter($"b{slot.Adapter}", width, slot.Rank), Values.Brain(width * slot.Rank, 3));
                _ = over ? test.OutOver(y, sum) : test.Out(y);
                test.Work(OpCase.Tokens("p", 4)).Compare(type == ElementType.BF16 ? Values.Place : 1e-5, type == ElementType.BF16 ? 0.05 : 1e-5);
            }
    }

    private static void Linear(int[] adapters, ElementType type, int addend, bool fan)
    {
        const int inside = 21, outside = 35;
        var slots = addend == 2 ? s_slots.Where(s => !s.UseDora).ToArray() : s_slots;
        var tokens = s_cuSeqlens[^1];
        Tensor Weight(string name) => fan ? OpCase.Weight(name, inside, outside, ElementType.BF16) : OpCase.Weight(name, outside, inside, ElementType.BF16);
        var (z, y) = (OpCase.Tokens("z", outside, type), OpCase.Tokens("y", outside, type));
        var test = Segmented(new OpCase(new GroupedLoraOp(slots, fan), Size()), adapters)
            .In(OpCase.Tokens("x", inside, type), Values.Brain(tokens * inside, 1))
            .In(Weight("w"), Values.Brain(inside * outside, 2))
            .In(OpCase.Weight("bias", 1, outside), Values.Brain(outside, 3));
        _ = addend == 0 ? test.None() : test.In(z, Values.Brain(tokens * outside, 4));
        foreach (var slot in slots)
        {
            if (slot.InFull)
                test.In(Weight("own"), Values.Brain(inside * outside, 5)).None();
            else
                test.In(OpCase.Parameter($"a{slot.Adapter}", slot.Rank, inside), Values.Brain(slot.Rank * inside, 6, 0.2))
                    .In(OpCase.Parameter($"b{slot.Adapter}", outside, slot.Rank), Values.Brain(outside * slot.Rank, 7, 0.2));
            _ = slot.UseDora ? test.In(OpCase.Fixed($"g{slot.Adapter}", 1, outside), OpCase.Random(outside, 8, 0.3, 1)) : test.None();
            _ = slot.OwnBias ? test.In(OpCase.Parameter($"bias{slot.Adapter}", 1, outside), OpCase.Random(outside, 9)) : test.None();
        }
        _ = addend == 2 ? test.OutOver(y, z) : test.Out(y);
        // A segment's share comes on top of rows that were rounded, on both sides.
        test.Work(OpCase.Tokens("p", 5)).Compare(type == ElementType.BF16 ? Values.Place : 1e-5, type == ElementType.BF16 ? 0.02 : 1e-5);
    }

    private static BatchSize Size() => new(s_cuSeqlens[^1], s_cuSeqlens.Length - 1, 200);

    private static OpCase Segmented(OpCase test, int[] adapters)
    {
        var segments = new AdapterSegments(new AdapterBank(6), adapters.Length);
        segments.ByRow(adapters, s_cuSeqlens, Size());
        test.Step.Segments = segments;
        return test;
    }
}
