using CsCheck;
using NativeLora.Graphs;
using NativeLora.Models;
using NativeLora.Ops;
using NativeLora.Tests.Models;

namespace NativeLora.Tests.Graphs;

/// <summary>Whether what a plan lets share bytes may share them. Lives are worked out here again, from the nodes alone.</summary>
public class MemoryPlanTests
{
    private static readonly string[] BertTargets = ["query", "key", "value", "attention.output.dense", "intermediate.dense", "output.dense"];
    private static readonly string[] DebertaTargets = ["query_proj", "key_proj", "value_proj", "attention.output.dense", "intermediate.dense", "output.dense"];
    private static readonly string[] LlamaTargets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];

    [Fact]
    public void TensorsThatLiveAtOneTimeNeverShareBytes()
    {
        var cases = Gen.Select(Gen.Int[0, TinyModel.Kinds.Count - 1], Gen.Int[0, 15], Gen.Int[1, 127], Gen.Bool, Gen.Bool, Gen.Int[0, 2], Gen.Bool,
            Gen.Select(Gen.Int[1, 40], Gen.Int[1, 5]));
        cases.Sample((kindIndex, mask, targetMask, adapterDropout, baseDropout, represent, keep, size) =>
        {
            var kind = TinyModel.Kinds[kindIndex];
            var model = Plans.Model(kind);
            var all = kind == "deberta" ? DebertaTargets : model.IsEncoder ? BertTargets : LlamaTargets;
            var targets = all.Where((_, i) => (targetMask >> i & 1) == 1).ToArray();
            if (targets.Length == 0)
                targets = [all[0]];
            string[] saved = model.IsEncoder ? ["classifier"] : ["model.layers.2.mlp.up_proj"];
            // No layer at all stands for training in full.
            var trainables = mask == 0 ? Trainables.Everything
                : Plans.Adapters(model, targets, Plans.LayersOf(mask), adapterDropout ? 0.1 : 0, baseDropout && !targets.Contains("up_proj") ? saved : null);
            var graph = Plans.Training(model, trainables, baseDropout, (Representation)represent, keep);
            AssertSound(MemoryPlan.For(graph, new BatchSize(size.Item1 * size.Item2, size.Item2, 0)));
        }, iter: 150, threads: 1);
    }

    [Fact]
    public void PlansOfInferenceAreSoundToo()
    {
        foreach (var kind in TinyModel.Kinds)
            foreach (var represent in Enum.GetValues<Representation>())
                foreach (var keep in new[] { false, true })
                {
                    var model = Plans.Model(kind);
                    var graph = new Graph(Trainables.None);
                    model.Build(graph, new BuildOptions { Head = TinyModel.Head(model), MaxLength = 16, Represent = represent, KeepHiddenStates = keep });
                    Assert.Equal(represent == Representation.None ? 0 : 5, graph.Features.Count);
                    AssertSound(MemoryPlan.For(graph, new BatchSize(33, 4, 0)));
                }
    }

    /// <summary>First node that writes each arena tensor and last node that reads it; a tensor for the host lives on.</summary>
    private static Dictionary<Tensor, (int First, int Last)> Lives(Graph graph)
    {
        var lives = new Dictionary<Tensor, (int First, int Last)>();
        for (var i = 0; i < graph.Nodes.Count; i++)
        {
            foreach (var output in graph.Nodes[i].Outputs.Where(o => o.InArena))
                lives[output] = (lives.TryGetValue(output, out var known) ? known.First : i, i);
            foreach (var input in graph.Nodes[i].Inputs.OfType<Tensor>().Where(t => t.InArena))
                lives[input] = (lives[input].First, i);
        }
        foreach (var tensor in lives.Keys.Where(t => t.Kept || t == graph.Loss || graph.Features.Contains(t)).ToList())
            lives[tensor] = (lives[tensor].First, graph.Nodes.Count);
        return lives;
    }

    private static void AssertSound(MemoryPlan plan)
    {
        var (graph, size) = (plan.Graph, plan.Capacity);
        var lives = Lives(graph).Select(l => (Tensor: l.Key, l.Value.First, l.Value.Last, From: plan.Offset(l.Key), To: plan.Offset(l.Key) + l.Key.Bytes(size))).ToArray();
        Assert.All(lives, t => Assert.True(t.From >= 0 && t.From % 64 == 0 && t.To <= plan.ArenaBytes, t.Tensor.Name));
        // The arena ends where the last tensor ends.
        Assert.InRange(plan.ArenaBytes - lives.Max(t => t.To), 0, 63);
        for (var a = 0; a < lives.Length; a++)
            for (var b = a + 1; b < lives.Length; b++)
            {
                var (x, y) = lives[a].First <= lives[b].First ? (lives[a], lives[b]) : (lives[b], lives[a]);
                var shareBytes = x.From < y.To && y.From < x.To && x.Tensor.Bytes(size) > 0 && y.Tensor.Bytes(size) > 0;
                if (!shareBytes || y.First > x.Last)
                    continue;
                Assert.True(y.First == x.Last && x.Last < graph.Nodes.Count && MayTakeOver(graph.Nodes[y.First], x.Tensor, y.Tensor) && x.From == y.From,
                    $"{x.Tensor} (nodes {x.First} to {x.Last}) and {y.Tensor} (nodes {y.First} to {y.Last}) share bytes");
            }
        // No plan can do with less than what lives at the worst node, its outputs written over dying inputs where allowed.
        for (var i = 0; i < graph.Nodes.Count; i++)
        {
            var node = graph.Nodes[i];
            var alive = lives.Where(t => t.First <= i && t.Last >= i && !(t.Last == i && t.First < i && node.Outputs.Any(o => o.InArena && MayTakeOver(node, t.Tensor, o))));
            Assert.True(alive.Sum(t => t.Tensor.Bytes(size)) <= plan.ArenaBytes);
        }
        AssertCostsAddUp(plan);
    }

    private static bool MayTakeOver(Node node, Tensor input, Tensor output) =>
        node.Outputs.Contains(output) && input.Shape == output.Shape && node.Inputs.Contains(input)
        && Enumerable.Range(0, node.Inputs.Count).All(j => node.Inputs[j] != input || node.Op.MayOverwrite(j));

    private static void AssertCostsAddUp(MemoryPlan plan)
    {
        var (graph, size) = (plan.Graph, plan.Capacity);
        var layers = plan.Layers(size);
        var report = plan.Report(scratch: 100);
        Assert.Equal(graph.Trainable.Sum(t => t.Shape.Elements(size)), layers.Sum(l => l.ParameterElements));
        Assert.Equal(plan.Saved.Sum(t => t.Bytes(size)), layers.Sum(l => l.SavedBytes));
        Assert.Equal(report.Saved, layers.Sum(l => l.SavedBytes));
        Assert.Equal(graph.Nodes.Sum(n => n.Op.Flops(n, size)), layers.Sum(l => l.ForwardFlops + l.BackwardFlops));
        Assert.Equal(layers.Select(l => l.Layer).Order(), layers.Select(l => l.Layer));
        Assert.All(layers, l => Assert.True(l.ForwardFlops >= 0 && l.BackwardFlops >= 0));
        Assert.Equal(plan.ArenaBytes, report.Arena);
        Assert.Equal(4 * layers.Sum(l => l.ParameterElements), report.Parameters);
        Assert.Equal(graph.ParameterGradients.Count > 0 ? 2 * report.Parameters : 0, report.Optimizer);
        Assert.Equal(report.Weights + report.Parameters + report.Gradients + report.Optimizer + report.Arena + report.Constants + report.Inputs + 100, report.Total);
        // Saved once each, and within the arena.
        Assert.Equal(plan.Saved.Count, plan.Saved.Distinct().Count());
        Assert.True(report.Saved <= report.Arena);
        Assert.Equal(plan.Saved.Count, Enumerable.Range(-1, 6).Sum(l => plan.SavedBy(l).Count()));
    }

    [Fact]
    public void SkippingLayersSavesWhatTheyNeedNotKeep()
    {
        foreach (var kind in new[] { "bert", "llama" })
        {
            var model = Plans.Model(kind);
            var size = BatchSize.Of(4, 16);
            string[] targets = model.IsEncoder ? BertTargets : LlamaTargets;
            long Saved(params int[] layers) => MemoryPlan.For(Plans.Training(model, Plans.Adapters(model, targets, layers)), size).Report().Saved;
            var (all, upper, top) = (Saved(0, 1, 2, 3), Saved(1, 3), Saved(3));
            Assert.True(top < upper && upper < all, $"{top}, {upper}, {all}");
        }
    }

    [Fact]
    public void FlopsAreThoseOfTheProducts()
    {
        // One linear layer of 12 to 5 with rank 2 over 7 tokens, by hand.
        var graph = new Graph(Trainables.Of(new Dictionary<string, AdapterSlot> { ["one"] = new(2, 1, 0) }, []));
        var x = graph.Embedding(12, 1, ("tokens", graph.TokenIds, 9));
        graph.SquaredError(graph.Gather("row", graph.Linear("one", graph.Linear("two", x, 12), 5)));
        var size = new BatchSize(7, 3, 0);
        long Of(string name) => graph.Nodes.Where(n => n.Name == name && n.Phase == Phase.Forward).Sum(n => n.Op.Flops(n, size));
        Assert.Equal(2 * 7 * 12 * 12, Of("two"));
        Assert.Equal(2 * 7 * (12 * 5 + 2 * (12 + 5)), Of("one"));
        Differentiate.Loss(graph);
        // dP, dA and dB; the frozen layer below needs nothing.
        Assert.Equal(2 * 7 * 5 * 2 + 2 * 7 * 5 * 2 + 2 * 7 * 2 * 12,
            graph.Nodes.Where(n => n.Phase == Phase.Backward && n.Op is LoraDownGradOp or WeightGradOp).Sum(n => n.Op.Flops(n, size)));
        Assert.DoesNotContain(graph.Nodes, n => n.Phase == Phase.Backward && n.Name == "two");
    }
}
