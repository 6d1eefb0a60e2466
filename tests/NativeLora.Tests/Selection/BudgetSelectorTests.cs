using NativeLora.Adapters;
using NativeLora.Devices.Cpu;
using NativeLora.Graphs;
using NativeLora.Models;
using NativeLora.Selection;
using NativeLora.Tests.Models;

namespace NativeLora.Tests.Selection;

/// <summary>Choices at equal cost against the plans of all masks.</summary>
public sealed class BudgetSelectorTests : IDisposable
{
    private const int Layers = 6;
    private readonly TinyModel _tiny = new("bert", edit: json => json["num_hidden_layers"] = Layers);
    private readonly CpuDevice _device = new(1);
    private readonly PretrainedModel _model;
    private readonly ModelBlueprint _blueprint;
    private readonly CostRequest _training;
    private readonly BudgetSelector _selector;

    public BudgetSelectorTests()
    {
        _model = _tiny.Open(_device);
        _blueprint = ModelBlueprint.Of(_model);
        _training = new CostRequest
        {
            Lora = new LoraConfig { Rank = 3, Alpha = 6, TaskType = "SEQ_CLS", TargetModules = ModuleSelector.Of(TinyModel.SomeTargets(_blueprint.Model)) },
            Head = TinyModel.Head(_blueprint.Model),
            Capacity = BatchSize.Of(3, 11),
            MaxLength = 11,
            Threads = 1,
        };
        _selector = new BudgetSelector(_blueprint, _training);
    }

    public void Dispose()
    {
        _model.Dispose();
        _device.Dispose();
        _tiny.Dispose();
    }

    // As on a real encoder: the first is undefined, the upper ones change most.
    private static LayerScores Scores => new()
    {
        Cka = [null, 0.7, 0.8, 0.2, 0.5, 0.3],
        CkaDebiased = [null, 0.8, 0.7, 0.3, 0.5, 0.2],
        Gradient = [6, 1, 5, 2, 4, 3],
        GradientPerByte = [6, 1, 5, 2, 4, 3],
        ConstantInput = [true, false, false, false, false, false],
    };

    private static SelectionOptions By(SelectionStrategy strategy, ulong seed = 0) => new() { Strategy = strategy, Family = ModelFamily.Encoder, Seed = seed };

    private TrainingCost Cost(string mask) => CostPredictor.Predict(_blueprint, _training, LayerSelection.ParseLayers(mask, Layers));

    [Theory]
    [InlineData(SelectionStrategy.Cka)]
    [InlineData(SelectionStrategy.CkaDebiased)]
    [InlineData(SelectionStrategy.Gradient)]
    [InlineData(SelectionStrategy.GradientPerByte)]
    [InlineData(SelectionStrategy.Random)]
    [InlineData(SelectionStrategy.Last)]
    [InlineData(SelectionStrategy.First)]
    public void Layers_are_taken_in_order_while_they_fit(SelectionStrategy strategy)
    {
        foreach (var bound in (string[])["000111", "111000", "010101", "001000", "111111", "110000"])
            for (var seed = 0ul; seed < 4; seed++)
            {
                var budget = new TrainingBudget(Cost(bound).Memory.Total, null);
                var order = LayerSelection.Select(Layers, Scores, By(strategy, seed) with { Ratio = 1 }).Selected;
                // The same, written down plainly.
                var taken = new List<int>();
                foreach (var layer in order)
                {
                    if (CostPredictor.Predict(_blueprint, _training, [.. taken.Append(layer).Order()]).Memory.Total <= budget.Bytes)
                        taken.Add(layer);
                    else if (strategy is SelectionStrategy.First or SelectionStrategy.Last)
                        break;
                }
                if (taken.Count == 0)
                {
                    Assert.Contains("has no layer that fits the budget of", Assert.Throws<InputException>(() => _selector.Select(Scores, By(strategy, seed), budget)).Message, StringComparison.Ordinal);
                    continue;
                }
                var found = _selector.Select(Scores, By(strategy, seed), budget);
                Assert.Equal(taken, found.Selection.Selected);
                Assert.Equal(Cost(found.Selection.Mask).Memory, found.Cost.Memory);
                Assert.True(budget.Holds(found.Cost));
            }
    }

    [Fact]
    public void What_budgets_come_to_on_an_encoder()
    {
        // Small adapters and a large batch, as in real trainings.
        var selector = new BudgetSelector(_blueprint, _training with { Capacity = BatchSize.Of(64, 11), Lora = _training.Lora with { Rank = 1 } });
        string Within(string bound, SelectionStrategy strategy) =>
            selector.Select(Scores, By(strategy), new TrainingBudget(selector.Plan(LayerSelection.ParseLayers(bound, Layers)).Memory.Total, null)).Selection.Mask;
        // Where the backward ends decides nearly all bytes: whatever its order, a strategy that may pass layers over ends with the same three.
        foreach (var strategy in (SelectionStrategy[])[SelectionStrategy.Cka, SelectionStrategy.Gradient, SelectionStrategy.Last, SelectionStrategy.Random, SelectionStrategy.Suggest, SelectionStrategy.SuggestGradient])
            Assert.Equal("000111", Within("000111", strategy));
        Assert.Throws<InputException>(() => Within("000111", SelectionStrategy.First));
        // Three layers with the first one cost more than the five above it.
        Assert.Equal("011111", Within("111000", SelectionStrategy.Last));
        Assert.Equal("011111", Within("111000", SelectionStrategy.Cka));
        Assert.Equal("111000", Within("111000", SelectionStrategy.First));
        // By gradient 0 comes first here, then 2 and 4.
        Assert.Equal("101010", Within("111000", SelectionStrategy.Gradient));
        Assert.Equal("111111", Within("111111", SelectionStrategy.Even));
    }

    [Fact]
    public void Suggestions_value_what_the_rule_may_take()
    {
        Assert.Equal([null, 1 - 0.7, 1 - 0.8, 1 - 0.2, 1 - 0.5, 1 - 0.3], BudgetSelector.GainsOf(Layers, Scores, By(SelectionStrategy.Suggest)));
        Assert.Equal([6, 1, 5, 2, 4, 3], BudgetSelector.GainsOf(Layers, Scores, By(SelectionStrategy.SuggestGradient)));
        var flops = new TrainingBudget(null, Cost("010101").FlopsPerStep);
        var found = _selector.Select(Scores, By(SelectionStrategy.Suggest), flops);
        var best = Enumerable.Range(1, (1 << Layers) - 1).Select(bits => Cost(string.Concat(Enumerable.Range(0, Layers).Select(l => (bits >> l) & 1))))
            .Where(flops.Holds).Max(c => Enumerable.Range(1, Layers - 1).Sum(l => c.Mask[l] == '1' ? 1 - Scores.Cka[l]!.Value : 0));
        Assert.Equal(best, found.Selection.Selected.Sum(l => 1 - Scores.Cka[l]!.Value), 1e-12);
        Assert.Throws<InputException>(() => _selector.Select(null, By(SelectionStrategy.Suggest), flops));
        Assert.Throws<InputException>(() => LayerSelection.Select(Layers, Scores, By(SelectionStrategy.Suggest) with { Ratio = 0.5 }));
        Assert.Throws<InputException>(() => _selector.Select(Scores, By(SelectionStrategy.Cka) with { Ratio = 0.5 }, flops));
    }
}
