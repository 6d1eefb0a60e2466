using NativeLora.Adapters;

namespace NativeLora.Tests.Adapters;

public class AdapterInitializerTests
{
    private static readonly ModelModules Model = new(
        "llama", "LlamaForCausalLM",
        [
            new("model.embed_tokens", ModuleKind.Embedding, 500, 40, false, false),
            new("model.layers.0.mlp.up_proj", ModuleKind.Linear, 400, 300, false, false),
            new("model.layers.1.mlp.up_proj", ModuleKind.Linear, 400, 300, false, false),
            new("score", ModuleKind.Linear, 300, 50, true, true),
        ],
        2);

    private static AdapterWeights Create(LoraConfig config, ulong seed = 1) =>
        AdapterInitializer.Create(config, TargetResolver.Resolve(config, Model), seed, _ => null).Weights;

    private static double Deviation(float[] values) => Math.Sqrt(values.Average(v => (double)v * v) - Math.Pow(values.Average(v => (double)v), 2));

    [Theory]
    [InlineData("true", 0.02886, 0)]
    [InlineData("gaussian", 0.0625, 0)]
    [InlineData("false", 0.02886, 0.14434)]
    public void Values_follow_the_rule(string init, double a, double b)
    {
        // A uniform distribution within ±x has deviation x/√3: 1/√400 and 1/√16 here.
        var weights = Create(new LoraConfig { Rank = 16, InitLoraWeights = init, TargetModules = ModuleSelector.Of("up_proj") });
        var (at, bt) = (weights["model.layers.0.mlp.up_proj.lora_A.weight"], weights["model.layers.0.mlp.up_proj.lora_B.weight"]);
        Assert.Equal([16, 400], at.Shape);
        Assert.Equal([300, 16], bt.Shape);
        Assert.InRange(Deviation(at.Values), a * 0.97, a * 1.03);
        Assert.InRange(at.Values.Average(v => (double)v), -a / 20, a / 20);
        Assert.InRange(Deviation(bt.Values), b * 0.97, b * 1.03);
        if (init != "gaussian")
            Assert.InRange(at.Values.Max(MathF.Abs), 0.0499f, 0.05f);
    }

    [Fact]
    public void Embeddings_start_with_zero_A()
    {
        var weights = Create(new LoraConfig { TargetModules = ModuleSelector.Of("embed_tokens") });
        Assert.All(weights["model.embed_tokens.lora_embedding_A"].Values, v => Assert.Equal(0, v));
        Assert.InRange(Deviation(weights["model.embed_tokens.lora_embedding_B"].Values), 0.85, 1.15);
    }

    [Fact]
    public void A_module_begins_alike_whatever_else_is_adapted()
    {
        const string Key = "model.layers.1.mlp.up_proj.lora_A.weight";
        var config = new LoraConfig { TargetModules = ModuleSelector.Of("up_proj") };
        var all = Create(config);
        Assert.Equal(all[Key].Values, Create(config with { LayersToTransform = [1] })[Key].Values);
        Assert.NotEqual(all[Key].Values, all["model.layers.0.mlp.up_proj.lora_A.weight"].Values);
        Assert.NotEqual(all[Key].Values, Create(config, seed: 2)[Key].Values);
    }

    [Fact]
    public void Heads_come_from_the_base_or_are_fresh()
    {
        var config = new LoraConfig { TargetModules = ModuleSelector.Of("up_proj"), TaskType = "SEQ_CLS" };
        var targets = TargetResolver.Resolve(config, Model);
        var (weights, fresh) = AdapterInitializer.Create(config, targets, 1, _ => null, headDeviation: 0.5);
        Assert.Equal(["score.weight", "score.bias"], fresh);
        Assert.InRange(Deviation(weights["score.weight"].Values), 0.48, 0.52);
        Assert.All(weights["score.bias"].Values, v => Assert.Equal(0, v));

        var given = Enumerable.Range(0, 15000).Select(i => (float)i).ToArray();
        (weights, fresh) = AdapterInitializer.Create(config, targets, 1, name => name == "score.weight" ? given : null);
        Assert.Equal(["score.bias"], fresh);
        Assert.Equal(given, weights["score.weight"].Values);
        Assert.Throws<InputException>(() => AdapterInitializer.Create(config, targets, 1, _ => new float[3]));
    }

    [Fact]
    public void Decompositions_are_refused()
    {
        var config = new LoraConfig { TargetModules = ModuleSelector.Of("up_proj"), InitLoraWeights = "pissa" };
        Assert.Contains("pissa", Assert.Throws<InputException>(() => Create(config)).Message);
    }
}
