using NativeLora.Graphs;
using NativeLora.Ops;
using NativeLora.Tensors;

namespace NativeLora.Cuda.Tests.Losses;

/// <summary>LM head and loss in chunks against the CPU's.</summary>
[Collection(Cuda.Collection)]
public class LmHeadTests
{
    private const int Ignored = -100;

    private sealed record Head
    {
        public int Tokens { get; init; } = 21;

        public int Hidden { get; init; } = 24;

        public int Vocabulary { get; init; } = 101;

        public int Chunk { get; init; } = 8;

        public float Softcap { get; init; }

        public string Labels { get; init; } = "some";

        public ElementType Type { get; init; } = ElementType.F32;

        public ElementType Weight { get; init; } = ElementType.F32;

        public bool Trained { get; init; }

        /// <summary>Whether the loss is differentiated.</summary>
        public bool Input { get; init; } = true;

        public bool Accumulates { get; init; }

        /// <summary>Whether the host tells how many tokens have a label.</summary>
        public bool Counted { get; init; }

        /// <summary>Tokens that the node is bound for beyond those of the batch.</summary>
        public int Spare { get; init; }

        public void Compare(double relative, double absolute) => Case().Compare(relative, absolute);

        public OpCase Case()
        {
            var random = new Random(Tokens + Vocabulary);
            int[] labels = [.. Enumerable.Range(0, Tokens).Select(t => Labels switch
            {
                "none" => Ignored,
                "one" => t == Tokens / 2 ? Vocabulary - 1 : Ignored,
                "all" => random.Next(Vocabulary),
                _ => random.Next(3) == 0 ? Ignored : random.Next(Vocabulary),
            })];
            var op = new LmHeadLossOp(Chunk, Softcap) { InputGradient = Input, WeightGradient = Trained };
            var size = new BatchSize(Tokens, 1, (long)Tokens * Tokens);
            var made = new OpCase(op, size) { Capacity = size with { Tokens = Tokens + Spare } };
            var count = labels.Count(l => l != Ignored);
            made.Step.InverseCount = 1f / Math.Max(1, count);
            made.Step.AccumulateGradients = Accumulates;
            if (Counted)
                made.Step.LabelledTokens = count;
            var weight = Trained ? OpCase.Parameter("w", Vocabulary, Hidden) : OpCase.Weight("w", Vocabulary, Hidden, Weight);
            made.In(OpCase.Tokens("h", Hidden, Type), OpCase.Random((long)Tokens * Hidden, 1))
                .In(weight, OpCase.Random((long)Vocabulary * Hidden, 2, 0.5))
                .In(OpCase.Ints("labels", Shape.PerToken(1)), labels)
                .Out(OpCase.Fixed("loss", 1, 1))
                .Work(OpCase.Fixed("logits", Softcap > 0 ? 2 * Chunk : Chunk, Vocabulary, category: TensorCategory.Workspace))
                .Work(OpCase.Fixed("rows", Chunk, Hidden, category: TensorCategory.Workspace));
            if (Input)
                made.Out(OpCase.Tokens("dh", Hidden, Type));
            if (Trained)
                made.Out(OpCase.Gradient("dw", Vocabulary, Hidden), Accumulates ? OpCase.Random((long)Vocabulary * Hidden, 9) : null);
            return made;
        }
    }

    [CudaTheory]
    [InlineData(0, 8, 5, 8)]
    [InlineData(1, 1, 1, 8)]
    [InlineData(2, 3, 7, 1)]
    [InlineData(8, 33, 70, 8)]
    [InlineData(31, 64, 65, 16)]
    [InlineData(70, 17, 33, 48)]
    [InlineData(5, 20, 1031, 48)]
    [InlineData(3, 8, 4099, 2)]
    [InlineData(2500, 2, 3, 700)]
    public void LossAndGradient_AreThoseOfTheCpu(int tokens, int hidden, int vocabulary, int chunk)
    {
        var head = new Head { Tokens = tokens, Hidden = hidden, Vocabulary = vocabulary, Chunk = chunk };
        head.Compare(2e-5, 1e-7);
        (head with { Counted = true, Spare = 5, Trained = true }).Compare(2e-5, 1e-7);
        // A product of bf16 rounds the gradient of the logits, which may fall to either side of a border.
        (head with { Type = ElementType.BF16, Weight = ElementType.BF16 }).Compare(1e-2, 2e-4);
    }

    [CudaTheory]
    [InlineData("none", false)]
    [InlineData("none", true)]
    [InlineData("one", false)]
    [InlineData("one", true)]
    [InlineData("all", true)]
    public void RowsWithoutALabel_HaveNoGradient(string labels, bool counted)
    {
        var head = new Head { Labels = labels, Counted = counted, Trained = true };
        head.Compare(2e-5, 1e-7);
        (head with { Accumulates = true }).Compare(2e-5, 1e-7);
        (head with { Type = ElementType.BF16, Accumulates = true }).Compare(1e-2, 2e-4);
    }

    [CudaFact]
    public void CountsOfTheHost_ChangeNoBit()
    {
        foreach (var type in new[] { ElementType.F32, ElementType.BF16 })
        {
            var head = new Head { Type = type, Weight = type, Tokens = 40 };
            var (told, not) = ((head with { Counted = true }).Case().RunCuda(), head.Case().RunCuda());
            Assert.Equal(told[0], not[0]);
            Assert.Equal(told[1], not[1]);
        }
    }

    [CudaTheory]
    [InlineData(ElementType.F32, ElementType.BF16)]
    [InlineData(ElementType.F32, ElementType.F16)]
    [InlineData(ElementType.BF16, ElementType.F32)]
    [InlineData(ElementType.BF16, ElementType.F16)]
    [InlineData(ElementType.F32, ElementType.Q8_0)]
    [InlineData(ElementType.BF16, ElementType.Q8_0)]
    public void WeightsOfOtherTypes_AreConverted(ElementType type, ElementType weight)
    {
        var brain = type == ElementType.BF16;
        new Head { Type = type, Weight = weight, Hidden = 64 }.Compare(brain ? 1e-2 : 2e-5, brain ? 2e-4 : 1e-7);
    }

    [CudaTheory]
    [InlineData(ElementType.F32, true)]
    [InlineData(ElementType.F32, false)]
    [InlineData(ElementType.BF16, true)]
    public void Softcap_IsThatOfTheCpu(ElementType type, bool differentiated)
    {
        var brain = type == ElementType.BF16;
        new Head { Type = type, Weight = type, Softcap = 1.5f, Hidden = 40, Input = differentiated }.Compare(brain ? 1e-2 : 2e-5, brain ? 2e-4 : 1e-7);
    }

    [CudaFact]
    public void TheLossAlone_NeedsNoGradient() => new Head { Input = false }.Compare(2e-6, 0);
}
