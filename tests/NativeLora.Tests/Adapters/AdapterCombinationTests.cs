using NativeLora.Adapters;
using NativeLora.Checkpoints;
using NativeLora.Cli.Verify;
using NativeLora.Devices.Cpu;
using NativeLora.Models;
using NativeLora.Tests.Checkpoints;
using NativeLora.Training;

namespace NativeLora.Tests.Adapters;

/// <summary>Adapters combined, against PEFT's add_weighted_adapter.</summary>
public class AdapterCombinationTests
{
    private static readonly CombinationOptions Half = new() { Density = 0.5 };

    private static WeightedAdapter Load(string folder, ModelModules model, double weight)
    {
        var adapter = AdapterFile.Load(folder, model);
        return new(adapter.Config, adapter.Weights, weight);
    }

    private static string Adapter(string name, string variant, string part) => Shared.Path("fixtures", "models", name, "adapters", variant, part);

    /// <summary>The adapter after training, whose settings lie with the one before.</summary>
    private static WeightedAdapter Trained(string name, string variant, ModelModules model, double weight)
    {
        using var folder = new TemporaryFolder();
        File.Copy(Path.Combine(Adapter(name, variant, "init"), "adapter_config.json"), folder.File("adapter_config.json"));
        File.Copy(Path.Combine(Adapter(name, variant, "final"), "adapter_model.safetensors"), folder.File("adapter_model.safetensors"));
        return Load(folder.Path, model, weight);
    }

    private static string GoldenFile => Shared.Path("fixtures", "combined", "llama-gqa", "golden.safetensors");

    private static IReadOnlyList<WeightedAdapter> Pair(ModelModules model) =>
    [
        Load(Adapter("llama-gqa", "lora-all", "init"), model, 0.7),
        Load(Shared.Path("fixtures", "combined", "llama-gqa", "b"), model, 0.6),
    ];

    private static double RelativeError(IReadOnlyList<float> got, IReadOnlyList<float> wanted)
    {
        Assert.Equal(wanted.Count, got.Count);
        return Math.Sqrt(wanted.Zip(got, (w, g) => Math.Pow((double)w - g, 2)).Sum() / wanted.Sum(w => (double)w * w));
    }

    /// <summary>B·A times a factor.</summary>
    private static float[] Product(AdapterTensor a, AdapterTensor b, double factor)
    {
        var (rank, width, height) = (a.Shape[0], a.Shape[1], b.Shape[0]);
        var product = new float[width * height];
        for (var o = 0; o < height; o++)
            for (var i = 0; i < width; i++)
                product[(o * width) + i] = (float)(factor * Enumerable.Range(0, rank).Sum(r => (double)b.Values[(o * rank) + r] * a.Values[(r * width) + i]));
        return product;
    }

    private static (LoraConfig Config, AdapterWeights Weights, double Weight) Small(int rank, float[] a, float[] b, double weight, string module = "m")
    {
        var weights = new AdapterWeights();
        weights.Set(AdapterLayout.LoraA(module), [rank, a.Length / rank], a);
        weights.Set(AdapterLayout.LoraB(module), [b.Length / rank, rank], b);
        return (new LoraConfig { Rank = rank, Alpha = rank, TargetModules = ModuleSelector.Of(module) }, weights, weight);
    }

    private static (LoraConfig Config, AdapterWeights Weights) Combine(
        CombinationType type, CombinationOptions? options, params (LoraConfig Config, AdapterWeights Weights, double Weight)[] adapters) =>
        AdapterCombination.Combine([.. adapters.Select(a => new WeightedAdapter(a.Config, a.Weights, a.Weight))], type, options);

    [SharedTheory]
    [InlineData(CombinationType.Linear, "linear", 4)]
    [InlineData(CombinationType.Cat, "cat", 8)]
    [InlineData(CombinationType.Ties, "ties", 4)]
    [InlineData(CombinationType.MagnitudePrune, "magnitude_prune", 4)]
    public void Tensors_are_those_of_PEFT(CombinationType type, string name, int rank)
    {
        var model = TestModels.Case("llama-gqa");
        var (config, weights) = AdapterCombination.Combine(Pair(model), type, Half);
        Assert.Equal((rank, rank, 1.0), (config.Rank, config.Alpha, config.Scaling));

        using var golden = SafeTensorsFile.Open(GoldenFile);
        var prefix = $"{name}.base_model.model.";
        var keys = golden.Tensors.Keys.Where(k => k.StartsWith(prefix, StringComparison.Ordinal)).ToList();
        Assert.Equal(14, keys.Count);
        foreach (var key in keys)
        {
            var got = weights[key[prefix.Length..]];
            Assert.Equal(golden.Tensors[key].Shape, got.Shape.Select(s => (long)s));
            var error = RelativeError(got.Values, golden.ReadFloat32(key));
            Assert.True(error <= 1e-6, $"{key}: {error}");
        }
    }

    [SharedTheory]
    [InlineData(CombinationType.Linear, "linear")]
    [InlineData(CombinationType.Cat, "cat")]
    [InlineData(CombinationType.Svd, "svd")]
    [InlineData(CombinationType.Ties, "ties")]
    [InlineData(CombinationType.MagnitudePrune, "magnitude_prune")]
    public void Logits_are_those_of_PEFT(CombinationType type, string name)
    {
        using var device = new CpuDevice(1);
        using var pretrained = PretrainedModel.Open(Shared.Path("fixtures", "models", "llama-gqa", "model"), device);
        var (config, weights) = AdapterCombination.Combine(Pair(pretrained.Modules(ModelHead.LanguageModel)), type, Half);
        using var model = TrainableModel.WithAdapters(pretrained, ModelHead.LanguageModel, config, weights, training: false);
        using var inputs = SafeTensorsFile.Open(Shared.Path("fixtures", "models", "llama-gqa", "inputs.safetensors"));
        using var golden = SafeTensorsFile.Open(GoldenFile);
        var batch = new FixtureBatch(inputs, "", pretrained.Model, CaseVerifier.PadOf(pretrained.Model));
        var (graph, outputs) = model.Build(new BuildOptions { Head = model.Head, MaxLength = batch.Width });
        using var session = model.NewSession(graph, CaseVerifier.Capacity(batch));
        session.Load(batch.Packed);
        session.Run();
        var (got, wanted) = batch.Unmasked(session.Read(outputs.Logits!), golden.ReadFloat32($"{name}.logits"));
        var error = RelativeError(got, wanted);
        Assert.True(error <= 1e-5, $"{error}");
    }

    /// <summary>Ranks and alphas by patterns, rsLoRA, embeddings: the stacked factors' product is the weighted sum, and the file is valid.</summary>
    [SharedTheory]
    [InlineData("llama-gqa", "lora-patterns")]
    [InlineData("llama-gqa", "rslora-selected")]
    [InlineData("llama-mha", "lora-embed")]
    public void Cat_is_the_weighted_sum_of_products(string name, string variant)
    {
        var model = TestModels.Case(name);
        var (one, two) = (Load(Adapter(name, variant, "init"), model, -0.5), Trained(name, variant, model, 2));
        var (config, weights) = AdapterCombination.Combine([one, two], CombinationType.Cat);
        using var folder = new TemporaryFolder();
        AdapterFile.Save(folder.File("both"), config, model, weights);
        var both = AdapterFile.Load(folder.File("both"), model);
        var targets = TargetResolver.Resolve(one.Config, model);
        Assert.Equal(targets.Adapted.Select(a => a.Name), both.Targets.Adapted.Select(a => a.Name));
        foreach (var adapted in targets.Adapted)
        {
            var (keyA, keyB) = adapted.Module.Kind == ModuleKind.Embedding
                ? (AdapterLayout.EmbeddingA(adapted.Name), AdapterLayout.EmbeddingB(adapted.Name))
                : (AdapterLayout.LoraA(adapted.Name), AdapterLayout.LoraB(adapted.Name));
            float[] Of(AdapterWeights from, double factor) => Product(from[keyA], from[keyB], factor);
            var wanted = Of(one.Weights, -0.5 * adapted.Scaling).Zip(Of(two.Weights, 2 * adapted.Scaling), (x, y) => x + y).ToArray();
            Assert.True(RelativeError(Of(both.Weights, both.Targets.Find(adapted.Name)!.Scaling), wanted) <= 1e-6, adapted.Name);
        }
    }

    [SharedFact]
    public void One_adapter_is_combined_linearly_with_ranks_of_patterns_filled_up()
    {
        var model = TestModels.Case("llama-gqa");
        var one = Trained("llama-gqa", "lora-patterns", model, -1.5);
        var (config, weights) = AdapterCombination.Combine([one], CombinationType.Svd);
        AdapterFile.Check(config, TargetResolver.Resolve(config, model), weights);
        var targets = TargetResolver.Resolve(one.Config, model).Adapted;
        Assert.True(targets.Select(a => a.Rank).Distinct().Count() > 1);
        foreach (var adapted in targets)
        {
            var (a, b) = (AdapterLayout.LoraA(adapted.Name), AdapterLayout.LoraB(adapted.Name));
            Assert.True(RelativeError(Product(weights[a], weights[b], 1), Product(one.Weights[a], one.Weights[b], -1.5 * adapted.Scaling)) <= 1e-6);
        }
    }

    [Fact]
    public void Svd_keeps_the_largest_singular_values()
    {
        // 3·u₁v₁ᵀ + 2·u₂v₂ᵀ + 1·u₃v₃ᵀ of unit vectors, out of two adapters of ranks 2 and 1.
        var one = Small(2, [0, 1, 0, 0, 1, 0, 0, 0], [0, 2, 1, 0, 0, 0], 1);
        var two = Small(1, [0, 0, 0, 1], [0, 0, 1], 3);
        var (config, weights) = Combine(CombinationType.Svd, new() { SvdRank = 2 }, one, two);
        Assert.Equal((2, 1.0), (config.Rank, config.Scaling));
        float[] wanted = [2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3];
        Assert.True(RelativeError(Product(weights["m.lora_A.weight"], weights["m.lora_B.weight"], 1), wanted) <= 1e-6);

        // With room to spare all of it stays, and the rest is 0.
        (_, weights) = Combine(CombinationType.Svd, new() { SvdRank = 6 }, one, two);
        wanted = [2, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 3];
        Assert.True(RelativeError(Product(weights["m.lora_A.weight"], weights["m.lora_B.weight"], 1), wanted) <= 1e-6);
        Assert.All(weights["m.lora_A.weight"].Values.Skip(12), v => Assert.Equal(0, v));
        Assert.All(Combine(CombinationType.Svd, null, Small(1, [1, 2], [0, 0], 1), Small(1, [1, 2], [0, 0], 1)).Weights.Tensors.Values, t => Assert.All(t.Values, v => Assert.Equal(0, v)));
    }

    [Theory]
    [InlineData(MajoritySign.Total, new[] { -6f, 2, 3, 0 })]
    [InlineData(MajoritySign.Frequency, new[] { 1.5f, 2, 3, 0 })]
    public void Ties_takes_the_mean_of_the_elected_sign(MajoritySign method, float[] wanted)
    {
        var (_, weights) = Combine(CombinationType.Ties, new() { Density = 1, MajoritySign = method },
            Small(1, [1, 2, 3, 0], [1], 1), Small(1, [2, 0, 0, 0], [1], 1), Small(1, [-6, 0, 0, 0], [1], 1));
        Assert.Equal(wanted, weights["m.lora_A.weight"].Values);
    }

    [Theory]
    [InlineData(0.0, new[] { 0f, 0, 0, 0, 0 })]
    [InlineData(0.5, new[] { 0f, -4, 3, 0, 0 })]
    [InlineData(0.79, new[] { 1f, -4, 3, 0, 0 })]
    [InlineData(1.0, new[] { 1f, -4, 3, -1, 0.5f })]
    public void Pruning_keeps_the_largest(double density, float[] wanted) =>
        Assert.Equal(wanted, AdapterCombination.Prune([1, -4, 3, -1, 0.5f], density));

    public static TheoryData<string, CombinationType, string> Wrong => new()
    {
        { "none", CombinationType.Cat, "no adapters" },
        { "ranks", CombinationType.Linear, "the ranks 1, 2" },
        { "ranks", CombinationType.Ties, "the ranks 1, 2" },
        { "targets", CombinationType.Cat, "has no tensor m.lora_A.weight" },
        { "more", CombinationType.Cat, "has the tensor n.lora_A.weight" },
        { "shapes", CombinationType.Cat, "[2, 2] for adapter 1 and [2, 3]" },
        { "config", CombinationType.Cat, "expected [3, in]" },
        { "half", CombinationType.Cat, "no tensor m.lora_B.weight" },
        { "head", CombinationType.Cat, "adapter 2 holds classifier.weight" },
        { "dora", CombinationType.Cat, "use_dora" },
        { "pissa", CombinationType.Cat, "pissa" },
        { "empty", CombinationType.Cat, "adapter 2 has no tensors" },
        { "weight", CombinationType.Cat, "weight of adapter 2" },
        { "values", CombinationType.Cat, "not finite" },
        { "density", CombinationType.Ties, "density from 0 to 1" },
        { "no density", CombinationType.MagnitudePrune, "density from 0 to 1" },
        { "svd rank", CombinationType.Svd, "svd_rank is 0" },
        { "large rank", CombinationType.Svd, "too large for m [2, 2]" },
        { "overflow", CombinationType.Cat, "exceeds what fp32 holds" },
        { "type", (CombinationType)99, "combination type 99" },
    };

    [Theory]
    [MemberData(nameof(Wrong))]
    public void Wrong_input_is_told(string what, CombinationType type, string message)
    {
        var one = Small(1, [1, 2], [3, 4], 1);
        var two = Small(1, [1, 2], [3, 4], 1);
        var options = Half;
        switch (what)
        {
            case "ranks": two = Small(2, [1, 2, 3, 4], [3, 4, 5, 6], 1); break;
            case "targets": two = Small(1, [1, 2], [3, 4], 1, "n"); break;
            case "more":
                two.Weights.Set("n.lora_A.weight", [1, 2], [1, 2]);
                two.Weights.Set("n.lora_B.weight", [2, 1], [1, 2]);
                break;
            case "shapes": two = Small(1, [1, 2, 3], [3, 4], 1); break;
            case "config": two.Config = two.Config with { Rank = 3 }; break;
            case "half":
                two.Weights = new();
                two.Weights.Set("m.lora_A.weight", [1, 2], [1, 2]);
                break;
            case "head": two.Weights.Set("classifier.weight", [1, 2], [1, 2]); break;
            case "dora": two.Config = two.Config with { UseDora = true }; break;
            case "pissa": two.Config = two.Config with { InitLoraWeights = "pissa" }; break;
            case "empty": two.Weights = new(); break;
            case "weight": two.Weight = double.NaN; break;
            case "values": two.Weights.Set("m.lora_A.weight", [1, 2], [1, float.NaN]); break;
            case "density": options = new() { Density = 1.5 }; break;
            case "no density": options = new(); break;
            case "large rank": options = new() { SvdRank = int.MaxValue }; break;
            case "overflow": two.Weight = 3e38; break;
            case "svd rank": options = new() { SvdRank = 0 }; break;
        }
        var error = Assert.Throws<InputException>(() => what == "none" ? Combine(type, options) : Combine(type, options, one, two));
        Assert.Contains(message, error.Message, StringComparison.Ordinal);
        Assert.DoesNotContain('\n', error.Message);
    }
}
