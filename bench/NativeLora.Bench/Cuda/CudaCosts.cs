using System.Globalization;
using System.Text;
using NativeLora.Adapters;
using NativeLora.Bench.Compare;
using NativeLora.Devices.Cuda;
using NativeLora.Graphs;
using NativeLora.Models;
using NativeLora.Ops;
using NativeLora.Selection;
using NativeLora.Tensors;

namespace NativeLora.Bench.Cuda;

/// <summary>Writes docs/cuda-costs.md: kernels by their PTX, and a training step by launches, bytes and the roofline. No GPU runs.</summary>
internal static class CudaCosts
{
    private const int Length = 512;

    // The paper's, and the largest that the fused kernels take.
    private static readonly int[] s_ranks = [128, 64];

    /// <summary>The paper's choice of layers for Llama-2-7B.</summary>
    private const string PaperMask = "11111111111011101000000000000001";

    public static void Run(Options options)
    {
        var folder = options.Text("model") ?? throw new InputException("--model FOLDER: a folder with the config.json of Llama-2-7B");
        var libraries = options.Text("emulator", Path.Combine("build", "cuda-emulator"));
        var output = options.Text("output", Path.Combine("docs", "cuda-costs.md"));
        var text = new StringBuilder();
        Add(text, $"""
            # What the CUDA kernels cost, on paper

            Written by `dotnet run -c Release --project bench/NativeLora.Bench -- cuda-costs --model FOLDER` (FOLDER: config.json of Llama-2-7B;
            the stand-in for CUDA must be built). **No hardware ran for any number here**: sizes and instructions are read from the PTX, launches
            are counted by the stand-in, bytes and operations follow from shapes, and times are rooflines, which nothing real reaches.


            """);
        Kernels(text);
        using var device = new CudaDevice(0, libraries);
        var blueprint = ModelBlueprint.Open(folder, precision: ElementType.BF16);
        var layers = blueprint.Model.Layers;
        if (layers != PaperMask.Length)
            throw new InputException($"{folder}: {layers} layers; the paper's mask is for {PaperMask.Length}");
        int[] every = [.. Enumerable.Range(0, layers)], chosen = [.. LayerSelection.ParseLayers(PaperMask, layers)];
        var steps = new List<(int Rank, Step All, Step Paper)>();
        foreach (var rank in s_ranks)
            steps.Add((rank, Step.Of(device, blueprint, rank, every), Step.Of(device, blueprint, rank, chosen)));
        foreach (var (rank, all, _) in steps)
            Operations(text, rank, all);
        Steps(text, steps);
        var temporary = output + ".tmp";
        File.WriteAllText(temporary, text.ToString());
        File.Move(temporary, output, overwrite: true);
        Console.WriteLine(output);
    }

    /// <summary>A step over one batch with its counts.</summary>
    private sealed record Step(MemoryPlan Plan, IReadOnlyList<NodeLaunches> Launches)
    {
        public BatchSize Size => Plan.Capacity;

        public static Step Of(CudaDevice device, ModelBlueprint blueprint, int rank, IReadOnlyCollection<int> layers)
        {
            var request = new CostRequest
            {
                Lora = new LoraConfig
                {
                    Rank = rank,
                    Alpha = 2 * rank,
                    TargetModules = ModuleSelector.Of("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
                },
                Head = ModelHead.LanguageModel,
                Capacity = BatchSize.Of(1, Length),
                MaxLength = Length,
            };
            var plan = CostPredictor.Predict(blueprint, request, layers).Plan;
            return new Step(plan, PlanLaunches.Count(device, plan));
        }

        public OpWork Work(Node node) => OpWork.Of(node, Size, s_tensorAttention);

        /// <summary>The work, with what our launches move in place of what has to be.</summary>
        public OpWork Done(NodeLaunches launches)
        {
            var work = Work(launches.Node);
            return work with { Bytes = OwnTraffic.Of(launches, Size, work) };
        }

        public long Trainable => Plan.Graph.Trainable.Sum(t => t.Shape.Elements(Size));
    }

    private static readonly bool s_tensorAttention = PtxKernel.Embedded().Any(k => k.Name.StartsWith("attention_forward", StringComparison.Ordinal) && k.Mix.ContainsKey(InstructionClass.Tensor));

    private static void Kernels(StringBuilder text)
    {
        var kernels = PtxKernel.Embedded();
        var registers = PtxKernel.Registers("sm_80");
        Add(text, $"""
            ## Kernels

            {kernels.Count} kernels in {kernels.Select(k => k.File).Distinct().Count()} files of PTX for compute capability 8.0. Instructions are counted in the text, a loop's body once, so they say of what kind a kernel is and
            not how long it runs. `local` is memory of a thread beside its registers. Registers are {(registers is null ? "not measured: only `ptxas` assigns them, and it is not installed here (the PTX's virtual registers are not registers)" : "those of `ptxas -arch=sm_80`")}.

            | kernel | file | threads | shared, bytes | local, bytes | registers | tensor | fp32 | fp64 | global | shared | lanes | barriers | branches | other |
            | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |

            """);
        InstructionClass[] order =
        [
            InstructionClass.Tensor, InstructionClass.Single, InstructionClass.Double, InstructionClass.Global, InstructionClass.Shared,
            InstructionClass.Lanes, InstructionClass.Barrier, InstructionClass.Branch, InstructionClass.Other,
        ];
        foreach (var k in kernels.OrderBy(k => k.File, StringComparer.Ordinal).ThenBy(k => k.Name, StringComparer.Ordinal))
            Row(text, [
                $"`{k.Name}`", k.File, Number(k.Threads), Number(k.SharedBytes), Number(k.LocalBytes),
                registers is null ? "not measured" : registers.TryGetValue(k.Name, out var count) ? Number(count) : "",
                .. order.Select(o => Number(k.Mix.GetValueOrDefault(o))),
            ]);
        text.Append('\n');
    }

    private static void Operations(StringBuilder text, int rank, Step step)
    {
        Add(text, $"""
            ## Ops of a step, r = {rank}

            Llama-2-7B, one sequence of {Length} tokens, bf16, adapters of rank {rank} on all seven projections of all layers. Launches are those of one node: our kernels + products by cuBLAS. MB are
            those that must move if each operand of the op moves once; in brackets what our launches move. Times are the roofline of the former, the longer of operations and bytes ({string.Join("; ", Gpu.All.Select(g => $"{g.Name}: {g.Tensor / 1e12:0} TFLOP/s bf16, {g.Single / 1e12:0.0} fp32, {g.Bandwidth / 1e12:0.00} TB/s"))}); m: bound by memory.

            | op | columns read → written | nodes | launches | GFLOP | MB | FLOP/byte | {string.Join(" | ", Gpu.All.Select(g => $"{g.Name}, µs"))} |
            | --- | --- | ---: | ---: | ---: | ---: | ---: | {string.Join(" | ", Gpu.All.Select(_ => "---:"))} |

            """);
        foreach (var group in step.Launches.GroupBy(l => (
            l.Node.Op.Name, Shapes: Shapes(l.Node), l.Kernels, l.Products, Work: step.Work(l.Node), Done: step.Done(l).Bytes)))
        {
            var work = group.Key.Work;
            Row(text, [
                group.Key.Name, group.Key.Shapes, Number(group.Count()), $"{group.Key.Kernels} + {group.Key.Products}", Decimal(work.Flops / 1e9), $"{Decimal(work.Bytes / 1e6)} ({Decimal(group.Key.Done / 1e6)})", Decimal(work.Flops / work.Bytes),
                .. Gpu.All.Select(g => Decimal(g.Seconds(work) * 1e6) + (g.IsBoundByMemory(work) ? " m" : "")),
            ]);
        }
        text.Append('\n');
    }

    /// <summary>Columns of what is read and written in rows of the batch, or the shape of a gradient.</summary>
    private static string Shapes(Node node)
    {
        static bool IsRow(Tensor? t) => t is { Shape.Kind: not RowKind.Fixed, Category: not TensorCategory.Input };
        var read = string.Join(" ", node.Inputs.Where(IsRow).Select(t => t!.Shape.Columns));
        var written = string.Join(" ", node.Outputs.Where(t => t.Category != TensorCategory.Workspace).Select(t => IsRow(t) ? $"{t.Shape.Columns}" : t.Shape.ToString()));
        return $"{read} → {written}";
    }

    private static void Steps(StringBuilder text, List<(int Rank, Step All, Step Paper)> steps)
    {
        Add(text, $"""
            ## A step: all layers against the paper's mask, our kernels against an unfused sequence

            The same batch. `paper`: adapters on the layers of {PaperMask}. Moved is what each launch reads and writes, each of its operands once. The unfused sequence is what PyTorch with PEFT would launch one operation
            at a time, as it is written down in `bench/NativeLora.Bench/Cuda/EagerStep.cs`; assumed are bf16 activations, weights, adapters and gradients (our adapters, their gradients and moments are fp32), flash attention,
            no recomputation, no dropout, gradients that are set and not added to, `clip_grad_norm_` and AdamW over lists of tensors (foreach). Roofline: the sum over the ops of the longer of operations and bytes moved.

            | | {string.Join(" | ", steps.Select(s => $"r = {s.Rank}, all layers | paper | saved"))} |
            | --- | {string.Join(" | ", steps.Select(_ => "---: | ---: | ---:"))} |

            """);
        Compare("trainable parameters", s => s.Trainable, Number);
        Compare("our kernels", s => Ours(s).Kernels, Number);
        Compare("products by cuBLAS", s => Ours(s).Products, Number);
        Compare("**launches**", s => Ours(s).Kernels + Ours(s).Products, Number);
        Compare("launches, unfused", s => Eager(s).Launches, Number);
        Compare("TFLOP", s => Ours(s).Work.Flops, v => Decimal(v / 1e12));
        Compare("**GB moved**", s => Ours(s).Work.Bytes, v => Decimal(v / 1e9));
        Compare("GB moved, unfused", s => Eager(s).Bytes, v => Decimal(v / 1e9));
        Compare("GB of an update in that", s => Update(s).Bytes, v => Decimal(v / 1e9));
        Compare("GB of an update, unfused", s => EagerStep.Update(s.Plan.Graph.Trainable, s.Size).Bytes, v => Decimal(v / 1e9));
        foreach (var gpu in Gpu.All)
            Compare($"{gpu.Name}: roofline, ms", s => s.Launches.Sum(l => gpu.Seconds(s.Done(l))) + gpu.Seconds(Update(s)), v => Decimal(v * 1e3));
        Add(text, $"""

            The update is {CudaOptimizer.LaunchesOfUpdate} launches whatever is trained: squares, norm and factor of clipping, and AdamW over all adapters (28 bytes an element, and 4 for the norm). Only the loss is copied to the host.

            """);

        void Compare(string name, Func<Step, double> value, Func<double, string> show) => Row(text, [
            name, .. steps.SelectMany(s => (string[])[show(value(s.All)), show(value(s.Paper)), Decimal(100 * (1 - value(s.Paper) / value(s.All))) + " %"]),
        ]);
    }

    private static OpWork Update(Step step) => new(0, 20.0 * step.Trainable, 32.0 * step.Trainable);

    private static (int Kernels, int Products, OpWork Work) Ours(Step step) =>
        (step.Launches.Sum(l => l.Kernels) + CudaOptimizer.LaunchesOfUpdate, step.Launches.Sum(l => l.Products),
            step.Launches.Aggregate(Update(step), (sum, l) => sum + step.Done(l)));

    private static EagerCost Eager(Step step)
    {
        var size = step.Size;
        var rotary = step.Plan.Graph.Nodes.Select(n => n.Op).OfType<RotaryOp>().First();
        return step.Plan.Graph.Nodes.Aggregate(EagerStep.RotaryTables(size, rotary.HeadDim) + EagerStep.Update(step.Plan.Graph.Trainable, size), (sum, n) => sum + EagerStep.Of(n, size));
    }

    private static void Add(StringBuilder text, FormattableString what) => text.Append(FormattableString.Invariant(what).ReplaceLineEndings("\n"));

    private static void Row(StringBuilder text, IEnumerable<string> cells) => text.Append("| ").AppendJoin(" | ", cells).Append(" |\n");

    private static string Number(int value) => value.ToString("#,0", CultureInfo.InvariantCulture);

    private static string Number(double value) => value.ToString("#,0", CultureInfo.InvariantCulture);

    private static string Decimal(double value) => value.ToString(Math.Abs(value) >= 100 ? "#,0" : Math.Abs(value) >= 1 ? "0.0" : "0.00", CultureInfo.InvariantCulture);
}
