using NativeLora.Adapters;
using NativeLora.Checkpoints;
using NativeLora.Serving;

namespace NativeLora.Tests.Serving;

/// <summary>Several adapters over one base: PEFT's mixed batch, and each as it is alone.</summary>
public sealed class AdapterSetTests
{
    private const double Close = 1e-5;

    [SharedFact]
    public void A_mixed_batch_has_the_logits_of_PEFT()
    {
        using var model = new ServedModel("llama-gqa");
        using var golden = SafeTensorsFile.Open(Shared.Path("fixtures", "combined", "llama-gqa", "golden.safetensors"));
        using var set = AdapterSet.Open(model.Pretrained, model.Head, ("a", model.Adapter("lora-all")), ("b", Shared.Path("fixtures", "combined", "llama-gqa", "b")));
        var (graph, outputs) = set.Build(model.Options);
        using var session = set.NewSession(graph, model.Capacity);
        void Check(string name, float[] logits)
        {
            var (got, wanted) = model.Batch.Unmasked(logits, golden.ReadFloat32($"{name}.logits"));
            Assert.InRange(ServedModel.Distance(got, wanted), 0, 1e-5);
        }
        Check("mixed", model.Run(session, outputs, set.Rows("a", "b", null, "b")));

        // The batch stays as it is loaded; another adapter acts on it.
        session.Load(model.Batch.Packed);
        foreach (var name in (string[])["a", "b", "a"])
        {
            set.Switch(name);
            Assert.Equal(name, set.Active);
            session.Run();
            Check(name, session.Read(outputs.Logits!));
        }
        set.Switch(null);
        session.Run();
        Assert.Equal(model.Alone(null), session.Read(outputs.Logits!));
    }

    /// <summary>Adapters of other ranks, targets, layers and kinds, each on some rows, give what each gives alone.</summary>
    [SharedTheory]
    [InlineData("llama-gqa", "lora-all", "lora-selected", "dora-selected", "pissa-selected", "olora-selected")]
    [InlineData("llama-mha", "lora-selected", "lora-embed", "dora-selected")]
    [InlineData("bert-cls", "lora-all", "lora-patterns", "dora-selected", "rslora-selected", "pissa-selected", "lora-selected")]
    [InlineData("roberta-cls", "lora-selected")]
    [InlineData("gpt2", "lora-selected", "dora-selected")]
    [InlineData("modernbert-cls", "lora-selected")]
    [InlineData("distilbert-cls", "lora-selected")]
    [InlineData("llama-cls", "lora-selected")]
    public void Each_row_is_as_with_its_adapter_alone(string name, params string[] variants)
    {
        using var model = new ServedModel(name);
        using var set = AdapterSet.Open(model.Pretrained, model.Head, variants.Select(v => (v, model.Final(v))));
        Assert.Empty(set.Warnings);
        var (graph, outputs) = set.Build(model.Options);
        graph.Keep(outputs.Logits!);
        using var session = set.NewSession(graph, model.Capacity);
        string?[] names = [.. variants, null];
        var alone = names.Select(v => model.Alone(v is null ? null : model.Load(model.Final(v)))).ToList();
        for (var i = 0; i < names.Length; i++)
        {
            set.Switch(names[i]);
            Assert.InRange(ServedModel.Distance(model.Run(session, outputs), alone[i]), 0, Close);
        }
        for (var shift = 0; shift < names.Length; shift++)
        {
            var rows = Enumerable.Range(0, model.Batch.Rows).Select(r => (r / (1 + (shift % 2)) + shift) % names.Length).ToArray();
            var mixed = model.Run(session, outputs, set.Rows(rows.Select(r => names[r])));
            for (var r = 0; r < rows.Length; r++)
                Assert.InRange(ServedModel.Distance(model.Sequence(mixed, r), model.Sequence(alone[rows[r]], r)), 0, Close);
        }
    }

    /// <summary>Sets share what they have in common: each stays as it is when another is made of it or disposed of.</summary>
    [SharedFact]
    public void Sets_with_one_more_or_less_share_their_adapters()
    {
        using var model = new ServedModel("bert-cls");
        float[] Of(AdapterSet set, string? name)
        {
            var (graph, outputs) = set.Build(model.Options);
            graph.Keep(outputs.Logits!);
            using var session = set.NewSession(graph, model.Capacity);
            set.Switch(name);
            return model.Run(session, outputs);
        }
        NamedAdapter Named(string variant) => model.Load(model.Final(variant)) is var loaded ? new NamedAdapter(variant, loaded.Config, loaded.Weights) : null!;
        var one = new AdapterSet(model.Pretrained, model.Head, [Named("lora-all")]);
        // What weights are converted to is there from the first session on.
        Of(one, null);
        var before = model.Pretrained.Device.AllocatedBytes;
        using var two = one.With(Named("dora-selected"));
        Assert.Equal(before + two.BytesOf("dora-selected"), model.Pretrained.Device.AllocatedBytes);
        Assert.Equal(4 * two.Parameters.Elements, two.BytesOf("lora-all") + two.BytesOf("dora-selected"));
        Assert.Throws<InputException>(() => two.With(Named("lora-all")));
        Assert.Throws<InputException>(() => one.BytesOf("dora-selected"));
        one.Dispose();
        using var other = two.Without("lora-all");
        Assert.Equal(["dora-selected"], other.Names);
        foreach (var name in (string[])["lora-all", "dora-selected"])
            Assert.InRange(ServedModel.Distance(Of(two, name), model.Alone(model.Load(model.Final(name)))), 0, Close);
        Assert.Equal(Of(two, "dora-selected"), Of(other, "dora-selected"));
        two.Dispose();
        Assert.InRange(ServedModel.Distance(Of(other, "dora-selected"), model.Alone(model.Load(model.Final("dora-selected")))), 0, Close);
        Assert.Equal(before + other.BytesOf("dora-selected") - (4 * one.Parameters.Elements), model.Pretrained.Device.AllocatedBytes);
    }

    /// <summary>Trained biases, of adapted modules and of others, go with their rows too.</summary>
    [SharedTheory]
    [InlineData(LoraBias.LoraOnly)]
    [InlineData(LoraBias.All)]
    public void Biases_are_each_adapters_own(LoraBias bias)
    {
        using var model = new ServedModel("gpt2");
        var modules = model.Pretrained.Modules(model.Head);
        var config = new LoraConfig { Rank = 3, InitLoraWeights = "false", TaskType = "CAUSAL_LM", TargetModules = ModuleSelector.Of("c_attn"), Bias = bias };
        var targets = TargetResolver.Resolve(config, modules);
        AdapterWeights Made(ulong seed)
        {
            var (weights, _) = AdapterInitializer.Create(config, targets, seed, name => new float[modules.Modules.First(m => $"{m.Name}.bias" == name).OutFeatures]);
            foreach (var tensor in AdapterLayout.Tensors(config, targets).Where(t => t.Role == AdapterRole.Bias))
                Array.Fill(weights[tensor.Key].Values, 0.1f * seed);
            return weights;
        }
        NamedAdapter[] adapters = [new("one", config, Made(1)), new("two", config, Made(2))];
        if (bias == LoraBias.All)
        {
            // A norm's bias has no place of its own for each row.
            Assert.Contains("ln_1 is trained in full", Assert.Throws<InputException>(() => { using var refused = new AdapterSet(model.Pretrained, model.Head, adapters); }).Message);
            return;
        }
        using var set = new AdapterSet(model.Pretrained, model.Head, adapters);
        var (graph, outputs) = set.Build(model.Options);
        using var session = set.NewSession(graph, model.Capacity);
        var rows = Enumerable.Range(0, model.Batch.Rows).Select(r => r % 3 == 2 ? null : adapters[r % 3].Name).ToArray();
        var mixed = model.Run(session, outputs, set.Rows(rows));
        for (var r = 0; r < rows.Length; r++)
        {
            var alone = model.Alone(rows[r] is null ? null : new LoadedAdapter(config, targets, adapters[r % 3].Weights));
            Assert.InRange(ServedModel.Distance(model.Sequence(mixed, r), model.Sequence(alone, r)), 0, Close);
        }
    }

    /// <summary>DeBERTa's relative positions go through the adapted projections, for all sequences at once.</summary>
    [SharedFact]
    public void Rows_that_sequences_share_take_one_adapter_a_batch()
    {
        using var model = new ServedModel("deberta-v3-cls");
        using var set = AdapterSet.Open(model.Pretrained, model.Head, ("one", model.Adapter("lora-selected")), ("two", model.Final("lora-selected")));
        var (graph, outputs) = set.Build(model.Options);
        graph.Keep(outputs.Logits!);
        using var session = set.NewSession(graph, model.Capacity);
        set.Switch("two");
        Assert.InRange(ServedModel.Distance(model.Run(session, outputs), model.Alone(model.Load(model.Final("lora-selected")))), 0, Close);
        var rows = new int[model.Batch.Rows];
        Assert.InRange(ServedModel.Distance(model.Run(session, outputs, rows), model.Alone(model.Load(model.Adapter("lora-selected")))), 0, Close);
        rows[0] = 1;
        Assert.Contains("run a batch for each adapter", Assert.Throws<InputException>(() => session.Load(model.Batch.Packed, rows)).Message);
    }

    [SharedFact]
    public void Switching_allocates_nothing_and_keeps_the_bits()
    {
        using var model = new ServedModel("llama-gqa");
        using var set = AdapterSet.Open(model.Pretrained, model.Head, ("a", model.Adapter("lora-all")), ("b", model.Adapter("lora-selected")));
        var (graph, outputs) = set.Build(model.Options);
        using var session = set.NewSession(graph, model.Capacity);
        set.Switch("a");
        var before = model.Run(session, outputs);
        set.Switch("b");
        Assert.NotEqual(before, model.Run(session, outputs));
        var allocated = GC.GetAllocatedBytesForCurrentThread();
        set.Switch("a");
        set.Switch(null);
        set.Switch("a");
        Assert.Equal(allocated, GC.GetAllocatedBytesForCurrentThread());
        Assert.Equal(before, model.Run(session, outputs));
        // Given row by row, the same adapter for all of them is the same product.
        Assert.Equal(before, model.Run(session, outputs, set.Rows(Enumerable.Repeat("a", model.Batch.Rows))));
    }

    [SharedFact]
    public void What_does_not_fit_is_refused_by_name()
    {
        using var model = new ServedModel("llama-mha");
        var loaded = model.Load(model.Adapter("lora-selected"));
        InputException Refused(params NamedAdapter[] adapters) =>
            Assert.Throws<InputException>(() => { using var set = new AdapterSet(model.Pretrained, model.Head, adapters); });
        var good = new NamedAdapter("good", loaded.Config, loaded.Weights);
        Assert.Contains("two adapters are called \"good\"", Refused(good, good).Message);
        Assert.Contains("adapter \"bad\"", Refused(good, new NamedAdapter("bad", loaded.Config with { Rank = 99 }, loaded.Weights)).Message);
        var norms = loaded.Config with { ModulesToSave = ["model.norm"] };
        var weights = model.Pretrained;
        Assert.Contains("merge this adapter", Refused(new NamedAdapter("norms", norms, WithNorm(loaded.Weights, weights.Model.HiddenSize))).Message);
        using var set = new AdapterSet(model.Pretrained, model.Head, [good]);
        Assert.Contains("there is no adapter \"other\" here; there are good", Assert.Throws<InputException>(() => set.Switch("other")).Message);
        var (graph, _) = set.Build(model.Options);
        using var session = set.NewSession(graph, model.Capacity);
        Assert.Throws<ArgumentException>(() => session.Load(model.Batch.Packed, [0]));
        Assert.Throws<ArgumentOutOfRangeException>(() => session.Load(model.Batch.Packed, [.. Enumerable.Repeat(7, model.Batch.Rows)]));
    }

    private static AdapterWeights WithNorm(AdapterWeights from, int width)
    {
        var weights = new AdapterWeights();
        foreach (var (key, tensor) in from.Tensors)
            weights.Set(key, tensor.Shape, tensor.Values);
        weights.Set("model.norm.weight", [width], new float[width]);
        return weights;
    }
}
