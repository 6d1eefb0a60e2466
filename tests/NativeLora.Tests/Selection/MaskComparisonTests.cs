using NativeLora.Adapters;
using NativeLora.Devices.Cpu;
using NativeLora.Graphs;
using NativeLora.Models;
using NativeLora.Selection;
using NativeLora.Tests.Models;

namespace NativeLora.Tests.Selection;

public sealed class MaskComparisonTests
{
    [Theory]
    [InlineData("bert", false)]
    [InlineData("llama", false)]
    [InlineData("gpt2", true)]
    [InlineData("deberta", false)]
    [InlineData("modernbert", true)]
    public void LayersSumToTheWholeAndSayWhatIsSaved(string kind, bool dropout)
    {
        using var tiny = new TinyModel(kind);
        using var device = new CpuDevice(1);
        using var model = tiny.Open(device);
        var blueprint = ModelBlueprint.Of(model);
        var layers = blueprint.Model.Layers;
        var request = new CostRequest
        {
            Lora = new LoraConfig
            {
                Rank = 3,
                Alpha = 6,
                Dropout = dropout ? 0.1 : 0,
                TaskType = blueprint.Model.IsEncoder ? "SEQ_CLS" : "CAUSAL_LM",
                TargetModules = ModuleSelector.Of(TinyModel.Targets(blueprint.Model)),
            },
            Head = TinyModel.Head(blueprint.Model),
            Capacity = BatchSize.Of(3, 11),
            MaxLength = 11,
            Threads = 1,
            Optimizer = OptimizerKind.AdamW8Bit,
        };
        // The last layer is skipped above the lowest adapted one, layer 0 lies below it.
        int[] some = [.. Enumerable.Range(1, layers - 2)];
        var (all, chosen) = (CostPredictor.Predict(blueprint, request, [.. Enumerable.Range(0, layers)]), CostPredictor.Predict(blueprint, request, some));
        var comparison = MaskComparison.Of(all, chosen, request.Optimizer);
        Assert.Equal(Enumerable.Range(-1, layers + 2), comparison.Layers.Select(l => l.Layer));
        foreach (var (cost, side) in new (TrainingCost, Func<LayerDifference, LayerDetail>)[] { (all, l => l.First), (chosen, l => l.Second) })
        {
            var details = comparison.Layers.Select(side).ToList();
            Assert.Equal(cost.TrainableParameters, details.Sum(d => d.Parameters));
            Assert.Equal(cost.Memory.Parameters, details.Sum(d => d.ParameterBytes));
            Assert.Equal(cost.Memory.Gradients, details.Sum(d => d.GradientBytes));
            Assert.Equal(cost.Memory.Optimizer, details.Sum(d => d.OptimizerBytes));
            Assert.Equal(cost.Memory.Saved, details.Sum(d => d.KeptBytes));
            Assert.Equal(cost.FlopsPerStep, details.Sum(d => d.ForwardFlops + d.BackwardFlops));
            Assert.Equal(cost.Mask, string.Concat(details.Skip(1).SkipLast(1).Select(d => d.Adapted ? '1' : '0')));
            var kept = MaskComparison.KeptOf(cost);
            foreach (var kind2 in kept.Keys)
                Assert.Equal(kept[kind2], details.Sum(d => d.Kept[kind2]));
        }

        var below = comparison.Layers[1];
        Assert.Equal((0, 0, 0), (below.Second.KeptBytes, below.Second.BackwardFlops, below.Second.Parameters));
        Assert.Contains("below layer 1", below.Reason, StringComparison.Ordinal);
        var above = comparison.Layers[layers];
        // Nothing for its own training, all that the backward through it reads.
        Assert.True(above.First.Kept[KeptFor.TrainedTensors] > 0);
        Assert.Equal(0, above.Second.Kept[KeptFor.TrainedTensors]);
        foreach (var through in new[] { KeptFor.Attention, KeptFor.Norms, KeptFor.Activations })
        {
            Assert.True(above.Second.Kept[through] > 0);
            Assert.Equal(above.First.Kept[through], above.Second.Kept[through]);
        }
        Assert.InRange(above.Second.BackwardFlops, 1, above.First.BackwardFlops - 1);
        Assert.StartsWith("skipped, but the gradient passes to layer 1", above.Reason, StringComparison.Ordinal);
        Assert.Contains("attention, norms, activations", above.Reason, StringComparison.Ordinal);
        Assert.Contains("the lowest adapted one", comparison.Layers[2].Reason, StringComparison.Ordinal);
    }
}
