using NativeLora.Adapters;
using NativeLora.Devices.Cpu;
using NativeLora.Graphs;
using NativeLora.Models;
using NativeLora.Selection;
using NativeLora.Tests.Models;
using NativeLora.Training;

namespace NativeLora.Tests.Selection;

/// <summary>The suggested mask is the best of all masks, each of them planned for real.</summary>
public sealed class MaskSuggestionTests
{
    public static TheoryData<string, int> Models() => new()
    {
        { "bert", 6 }, { "llama", 5 }, { "gpt2", 4 }, { "modernbert", 4 }, { "deberta", 4 }, { "distilbert", 4 },
    };

    private static readonly string[] s_depths = ["num_hidden_layers", "n_layer", "n_layers"];

    private static TinyModel Deep(string kind, int layers) => new(kind, edit: json =>
    {
        foreach (var name in s_depths.Where(json.ContainsKey))
            json[name] = layers;
    });

    private static CostRequest Training(Model model, Func<LoraConfig, LoraConfig>? change = null)
    {
        var config = new LoraConfig { Rank = 3, Alpha = 6, TaskType = model.IsEncoder ? "SEQ_CLS" : "CAUSAL_LM", TargetModules = ModuleSelector.Of(TinyModel.SomeTargets(model)) };
        return new CostRequest
        {
            Lora = change?.Invoke(config) ?? config,
            Head = TinyModel.Head(model),
            Capacity = BatchSize.Of(3, 11),
            MaxLength = 11,
            Threads = 1,
        };
    }

    private static int[] LayersOf(int bits) => [.. Enumerable.Range(0, 31).Where(l => (bits >> l & 1) == 1)];

    private static List<TrainingCost> AllMasks(ModelBlueprint blueprint, CostRequest training) =>
        [.. Enumerable.Range(1, (1 << blueprint.Model.Layers) - 1).Select(bits => CostPredictor.Predict(blueprint, training, LayersOf(bits)))];

    [Theory]
    [MemberData(nameof(Models))]
    public void NoMaskWithinTheBudgetIsWorthMore(string kind, int layers)
    {
        using var tiny = Deep(kind, layers);
        using var device = new CpuDevice(1);
        using var model = tiny.Open(device);
        var blueprint = ModelBlueprint.Of(model);
        Assert.Equal(layers, blueprint.Model.Layers);
        // Layers of different ranks, so that they differ in bytes too.
        var training = Training(blueprint.Model, c => c with { RankPattern = [new("layers?.1.*|h.1.*|layer.1.*", 9)] });
        var costs = AllMasks(blueprint, training);
        var random = new Random(layers);
        double?[] gains = [.. Enumerable.Range(0, layers).Select(_ => (double?)random.NextDouble())];
        double Gain(TrainingCost cost) => Enumerable.Range(0, layers).Where(l => cost.Mask[l] == '1').Sum(l => gains[l]!.Value);
        long[] bytes = [.. costs.Select(c => c.Memory.Total).Order()];
        long[] flops = [.. costs.Select(c => c.FlopsPerStep).Order()];
        var planned = 0;
        foreach (var share in new[] { 0.0, 0.1, 0.3, 0.6, 0.9 })
        {
            var at = (int)(share * (costs.Count - 1));
            foreach (var (mostBytes, mostFlops) in new (long?, long?)[] { (bytes[at], null), (null, flops[at]), (bytes[at], flops[costs.Count / 2]), (bytes[at] - 1, flops[^1]) })
            {
                var fitting = costs.Where(c => c.Memory.Total <= (mostBytes ?? long.MaxValue) && c.FlopsPerStep <= (mostFlops ?? long.MaxValue)).ToList();
                var request = new SuggestionRequest { Cost = training, Gains = gains, BudgetBytes = mostBytes, BudgetFlops = mostFlops };
                if (fitting.Count == 0)
                {
                    Assert.Contains("no mask fits the budget", Assert.Throws<InputException>(() => MaskSuggestion.Find(blueprint, request)).Message, StringComparison.Ordinal);
                    continue;
                }
                var found = MaskSuggestion.Find(blueprint, request);
                Assert.True(found.IsOptimal);
                Assert.Equal(fitting.Max(Gain), found.Gain, 1e-12);
                Assert.Contains(found.Mask, fitting.Select(c => c.Mask));
                Assert.Equal(costs.Single(c => c.Mask == found.Mask).Memory, found.Cost.Memory);
                Assert.Equal(found.Gain, Gain(found.Cost), 1e-12);
                Assert.Equal(LayerSelection.MaskOf(found.Layers, layers), found.Mask);
                planned = Math.Max(planned, found.Planned);
            }
        }
        Assert.InRange(planned, 1, costs.Count);
    }

    [Theory]
    [MemberData(nameof(Models))]
    public void BoundsAreBelowEveryPlanAndOperationsExact(string kind, int layers)
    {
        using var tiny = Deep(kind, layers);
        using var device = new CpuDevice(1);
        using var model = tiny.Open(device);
        var blueprint = ModelBlueprint.Of(model);
        foreach (var training in (CostRequest[])
        [
            Training(blueprint.Model),
            Training(blueprint.Model, c => c with { Bias = LoraBias.LoraOnly, Dropout = 0.1 }) with { Optimizer = OptimizerKind.AdamW8Bit },
            Training(blueprint.Model) with { Recompute = RecomputeLayers.All },
        ])
        {
            var costs = AllMasks(blueprint, training).ToDictionary(c => c.Mask);
            foreach (var lowest in Enumerable.Range(0, layers))
            {
                var alone = costs[LayerSelection.MaskOf([lowest], layers)];
                var upward = costs[LayerSelection.MaskOf(Enumerable.Range(lowest, layers - lowest), layers)];
                var bounds = new MaskBounds(layers, lowest, alone, upward, training.Optimizer);
                foreach (var cost in costs.Values.Where(c => c.LowestAdaptedLayer == lowest))
                {
                    bool[] adapted = [.. cost.Mask.Select(d => d == '1')];
                    var (bytes, flops) = bounds.Of(adapted);
                    Assert.InRange(bytes, 0.99 * cost.Memory.Total, cost.Memory.Total);
                    Assert.Equal(cost.FlopsPerStep, flops);
                    Assert.True(bounds.AtTheHead(adapted).Bytes <= bytes);
                }
            }
        }
    }

    [Fact]
    public void UndefinedGainsGetNoAdapterAndBadRequestsAreNamed()
    {
        using var tiny = Deep("bert", 4);
        using var device = new CpuDevice(1);
        using var model = tiny.Open(device);
        var blueprint = ModelBlueprint.Of(model);
        var request = new SuggestionRequest { Cost = Training(blueprint.Model), Gains = [null, 0.5, -0.25, 0.125], BudgetBytes = 1L << 40 };
        var found = MaskSuggestion.Find(blueprint, request);
        Assert.Equal("0101", found.Mask);
        Assert.Equal((0.625, 0.625), (found.Gain, found.WholeGain));
        foreach (var (wrong, saying) in new (SuggestionRequest, string)[]
        {
            (request with { Gains = [1, 1] }, "gains of 2 layers"),
            (request with { Gains = [1, double.NaN, 1, 1] }, "not finite"),
            (request with { Gains = [null, null, 0, -1] }, "worth anything"),
            (request with { BudgetBytes = null }, "no budget"),
            (request with { BudgetBytes = 1000 }, "no mask fits the budget of 1000 bytes"),
            (request with { BudgetBytes = null, BudgetFlops = 1000 }, "1000 operations a step"),
        })
            Assert.Contains(saying, Assert.Throws<InputException>(() => MaskSuggestion.Find(blueprint, wrong)).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void ASearchThatIsCutOffSaysSo()
    {
        using var tiny = Deep("bert", 6);
        using var device = new CpuDevice(1);
        using var model = tiny.Open(device);
        var blueprint = ModelBlueprint.Of(model);
        var training = Training(blueprint.Model);
        var costs = AllMasks(blueprint, training);
        double?[] gains = [0.9, 0.5, 0.4, 0.61, 0.3, 0.35];
        var cutOff = 0;
        foreach (var budget in costs.Select(c => c.Memory.Total).Order().Where((_, i) => i % 8 == 5))
        {
            var request = new SuggestionRequest { Cost = training, Gains = gains, BudgetBytes = budget };
            var whole = MaskSuggestion.Find(blueprint, request);
            // Eleven plans are for the bounds alone.
            var cut = MaskSuggestion.Find(blueprint, request with { MostPlans = 11 });
            Assert.True(whole.IsOptimal);
            Assert.Equal(11, cut.Planned);
            Assert.Equal(whole.Planned == 11, cut.IsOptimal);
            Assert.True(cut.Gain <= whole.Gain && cut.Bound >= whole.Gain);
            Assert.True(cut.Cost.Memory.Total <= budget);
            cutOff += cut.IsOptimal ? 0 : 1;
        }
        Assert.True(cutOff > 0);
    }
}
