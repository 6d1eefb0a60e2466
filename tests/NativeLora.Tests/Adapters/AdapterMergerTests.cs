using System.Text.Json;
using System.Text.Json.Nodes;
using NativeLora.Adapters;
using NativeLora.Checkpoints;
using NativeLora.Tensors;
using NativeLora.Tests.Checkpoints;

namespace NativeLora.Tests.Adapters;

public class AdapterMergerTests
{
    private static string Base(string name) => Shared.Path("fixtures", "models", name, "model");

    private static string Adapter(string name, string variant, string part = "init") => Shared.Path("fixtures", "models", name, "adapters", variant, part);

    private static void Merge(string from, ModelModules model, LoadedAdapter adapter, string to, IReadOnlyList<string>? labels = null)
    {
        using var checkpoint = Checkpoint.Open(from);
        AdapterMerger.Merge(checkpoint, model, adapter.Config, adapter.Weights, to, labels);
    }

    private static JsonElement Config(string folder) => JsonSerializer.Deserialize<JsonElement>(File.ReadAllText(Path.Combine(folder, "config.json")));

    private static void AssertSame(string expectedFile, string folder, double tolerance)
    {
        using var expected = SafeTensorsFile.Open(expectedFile);
        using var merged = SafeTensorsFile.Open(Path.Combine(folder, "model.safetensors"));
        Assert.Equal(expected.Tensors.Keys.Order(), merged.Tensors.Keys.Order());
        foreach (var (name, tensor) in expected.Tensors)
        {
            Assert.Equal(tensor.ShapeText, merged.Tensors[name].ShapeText);
            var (wanted, got) = (expected.ReadFloat32(name), merged.ReadFloat32(name));
            var error = Math.Sqrt(wanted.Zip(got, (w, g) => Math.Pow((double)w - g, 2)).Sum() / Math.Max(wanted.Sum(w => (double)w * w), 1e-30));
            Assert.True(error <= tolerance, $"{name}: {error}");
        }
    }

    [SharedTheory]
    [InlineData("bert-cls", "lora-selected")]
    [InlineData("bert-cls", "dora-selected")]
    [InlineData("roberta-cls", "lora-selected")]
    [InlineData("llama-gqa", "lora-selected")]
    [InlineData("llama-gqa", "dora-selected")]
    [InlineData("llama-mha", "lora-selected")]
    [InlineData("llama-mha", "lora-embed")]
    public void Merges_as_PEFT(string name, string variant)
    {
        using var folder = new TemporaryFolder();
        var model = TestModels.Case(name);
        Merge(Base(name), model, AdapterFile.Load(Adapter(name, variant), model), folder.File("merged") + Path.DirectorySeparatorChar);
        AssertSame(Path.Combine(Adapter(name, variant, "merged"), "model.safetensors"), folder.File("merged"), 1e-6);
        Assert.Equal(["config.json", "model.safetensors"], Directory.GetFiles(folder.File("merged")).Select(Path.GetFileName).Order());
        Assert.Equal([folder.File("merged")], Directory.GetFileSystemEntries(folder.Path));
        Assert.True(JsonElement.DeepEquals(Config(Base(name)), Config(folder.File("merged"))));
    }

    /// <summary>A copy of a base with other names and types.</summary>
    private static void Rewrite(string from, string to, Func<string, string?> rename, ElementType type)
    {
        using var file = SafeTensorsFile.Open(Path.Combine(from, "model.safetensors"));
        var tensors = new List<TensorToWrite>();
        foreach (var (name, tensor) in file.Tensors)
            if (rename(name) is { } renamed)
            {
                var values = file.ReadFloat32(name);
                tensors.Add(TensorToWrite.From(renamed, type, tensor.Shape, type switch
                {
                    ElementType.F32 => values.SelectMany(BitConverter.GetBytes).ToArray(),
                    ElementType.F16 => values.SelectMany(v => BitConverter.GetBytes((Half)v)).ToArray(),
                    _ => values.SelectMany(v => BitConverter.GetBytes((ushort)(BitConverter.SingleToUInt32Bits(v) >> 16))).ToArray(),
                }));
            }
        SafeTensorsWriter.Write(Path.Combine(to, "model.safetensors"), tensors);
    }

    [SharedFact]
    public void A_base_without_prefix_and_head_becomes_a_classifier()
    {
        using var folder = new TemporaryFolder();
        var model = TestModels.Case("roberta-cls");
        Rewrite(Base("roberta-cls"), folder.File("base"), n => n.StartsWith("roberta.") ? n["roberta.".Length..].Replace("LayerNorm.weight", "LayerNorm.gamma") : null, ElementType.F32);
        var config = JsonNode.Parse(File.ReadAllText(Path.Combine(Base("roberta-cls"), "config.json")))!.AsObject();
        config["architectures"] = new JsonArray("RobertaModel");
        config.Remove("id2label");
        config.Remove("label2id");
        File.WriteAllText(folder.File("base", "config.json"), config.ToJsonString());
        File.WriteAllText(folder.File("base", "merges.txt"), "#version: 0.2\n");
        File.WriteAllText(folder.File("base", "README.md"), "");

        var adapter = AdapterFile.Load(Adapter("roberta-cls", "lora-selected"), model);
        Merge(folder.File("base"), model, adapter, folder.File("merged"));
        AssertSame(Path.Combine(Adapter("roberta-cls", "lora-selected", "merged"), "model.safetensors"), folder.File("merged"), 1e-6);
        Assert.True(JsonElement.DeepEquals(Config(Base("roberta-cls")), Config(folder.File("merged"))));
        Assert.Equal(["config.json", "merges.txt", "model.safetensors"], Directory.GetFiles(folder.File("merged")).Select(Path.GetFileName).Order());

        Merge(folder.File("base"), model, adapter, folder.File("named"), ["no", "maybe", "yes"]);
        Assert.Equal("maybe", Config(folder.File("named")).GetProperty("id2label").GetProperty("1").GetString());
        Assert.Equal(2, Config(folder.File("named")).GetProperty("label2id").GetProperty("yes").GetInt32());
        Assert.Throws<InputException>(() => Merge(folder.File("base"), model, adapter, folder.File("wrong"), ["one"]));
    }

    [SharedTheory]
    [InlineData(ElementType.BF16, 4e-3)]
    [InlineData(ElementType.F16, 5e-4)]
    public void Keeps_the_type_of_the_base(ElementType type, double tolerance)
    {
        using var folder = new TemporaryFolder();
        var model = TestModels.Case("bert-cls");
        Rewrite(Base("bert-cls"), folder.File("base"), n => n, type);
        File.Copy(Path.Combine(Base("bert-cls"), "config.json"), folder.File("base", "config.json"));
        var adapter = AdapterFile.Load(Adapter("bert-cls", "lora-selected"), model);
        Merge(folder.File("base"), model, adapter, folder.File("merged"));

        using var from = SafeTensorsFile.Open(folder.File("base", "model.safetensors"));
        using var merged = SafeTensorsFile.Open(folder.File("merged", "model.safetensors"));
        var changed = adapter.Targets.Adapted.Select(a => $"{a.Name}.weight").ToHashSet();
        foreach (var (name, tensor) in from.Tensors)
        {
            Assert.Equal(type, merged.Tensors[name].Type);
            if (!changed.Contains(name) && !name.StartsWith("classifier"))
                Assert.True(from.Bytes(name).SequenceEqual(merged.Bytes(name)), name);
        }

        // Computed in fp32 from the rounded base, then rounded once.
        foreach (var adapted in adapter.Targets.Adapted)
        {
            var (w, got) = (from.ReadFloat32($"{adapted.Name}.weight"), merged.ReadFloat32($"{adapted.Name}.weight"));
            var (a, b) = (adapter.Weights[AdapterLayout.LoraA(adapted.Name)].Values, adapter.Weights[AdapterLayout.LoraB(adapted.Name)].Values);
            var width = adapted.Module.InFeatures;
            for (var i = 0; i < w.Length; i++)
            {
                var exact = w[i] + adapted.Scaling * Enumerable.Range(0, adapted.Rank).Sum(r => (double)b[i / width * adapted.Rank + r] * a[r * width + i % width]);
                Assert.True(Math.Abs(exact - got[i]) <= tolerance * Math.Abs(exact) + 1e-6, $"{adapted.Name}[{i}]: {got[i]} for {exact}");
            }
        }
    }

    [SharedFact]
    public void Values_too_large_for_fp16_are_an_error()
    {
        using var folder = new TemporaryFolder();
        var model = TestModels.Case("bert-cls");
        Rewrite(Base("bert-cls"), folder.File("base"), n => n, ElementType.F16);
        File.Copy(Path.Combine(Base("bert-cls"), "config.json"), folder.File("base", "config.json"));
        var adapter = AdapterFile.Load(Adapter("bert-cls", "lora-selected"), model);
        adapter.Weights["classifier.bias"].Values[1] = 70000;
        var error = Assert.Throws<RunException>(() => Merge(folder.File("base"), model, adapter, folder.File("merged")));
        Assert.Contains("classifier.bias", error.Message);
        Assert.Equal([folder.File("base")], Directory.GetFileSystemEntries(folder.Path));
    }

    [SharedTheory]
    [InlineData("lm_head")]
    [InlineData("embed_tokens")]
    public void Tied_embeddings_are_untied_where_one_changes(string target)
    {
        using var folder = new TemporaryFolder();
        var model = TestModels.Case("llama-gqa");
        var config = new LoraConfig { Rank = 2, TargetModules = ModuleSelector.Of(target), InitLoraWeights = "false", TaskType = "CAUSAL_LM" };
        var targets = TargetResolver.Resolve(config, model);
        var (weights, _) = AdapterInitializer.Create(config, targets, 3, _ => null);
        Merge(Base("llama-gqa"), model, new(config, targets, weights), folder.File("merged"));

        Assert.False(Config(folder.File("merged")).GetProperty("tie_word_embeddings").GetBoolean());
        using var from = SafeTensorsFile.Open(Path.Combine(Base("llama-gqa"), "model.safetensors"));
        using var merged = SafeTensorsFile.Open(folder.File("merged", "model.safetensors"));
        Assert.Equal(from.Tensors.Count + 1, merged.Tensors.Count);
        var tied = from.ReadFloat32("model.embed_tokens.weight");
        var (head, embedding) = (merged.ReadFloat32("lm_head.weight"), merged.ReadFloat32("model.embed_tokens.weight"));
        Assert.Equal(tied, target == "lm_head" ? embedding : head);
        Assert.NotEqual(tied, target == "lm_head" ? head : embedding);
    }

    [SharedFact]
    public void Refuses_what_does_not_belong_together()
    {
        using var folder = new TemporaryFolder();
        var bert = TestModels.Case("bert-cls");
        var adapter = AdapterFile.Load(Adapter("bert-cls", "lora-selected"), bert);

        // Another width; another architecture; a folder in use; an adapter over a base that was changed in a way not known here.
        Assert.Contains("base model", Assert.Throws<InputException>(() => Merge(Base("bert-aligned"), bert, adapter, folder.File("a"))).Message);
        Assert.Contains("base model", Assert.Throws<InputException>(() => Merge(Base("llama-gqa"), bert, adapter, folder.File("a"))).Message);
        Assert.Contains("not an empty folder", Assert.Throws<InputException>(() => Merge(Base("bert-cls"), bert, adapter, Adapter("bert-cls", "lora-selected"))).Message);
        var residual = adapter with { Config = adapter.Config with { InitLoraWeights = "corda" } };
        Assert.Contains("corda", Assert.Throws<InputException>(() => Merge(Base("bert-cls"), bert, residual, folder.File("a"))).Message);
        Assert.Empty(Directory.GetFileSystemEntries(folder.Path));
    }

    /// <summary>What the decomposition took out of the base is what the adapter begins with: together they are the base.</summary>
    [SharedTheory]
    [InlineData("pissa-selected")]
    [InlineData("olora-selected")]
    public void An_adapter_that_is_a_part_of_the_base_merges_into_the_base(string variant)
    {
        using var folder = new TemporaryFolder();
        var model = TestModels.Case("llama-gqa");
        var adapter = AdapterFile.Load(Adapter("llama-gqa", variant), model);
        Merge(Base("llama-gqa"), model, adapter, folder.File("merged"));
        using var from = SafeTensorsFile.Open(Path.Combine(Base("llama-gqa"), "model.safetensors"));
        using var merged = SafeTensorsFile.Open(folder.File("merged", "model.safetensors"));
        foreach (var adapted in adapter.Targets.Adapted)
        {
            var (was, now) = (from.ReadFloat32($"{adapted.Name}.weight"), merged.ReadFloat32($"{adapted.Name}.weight"));
            var norm = Math.Sqrt(was.Sum(v => (double)v * v));
            Assert.InRange(Math.Sqrt(was.Zip(now, (a, b) => ((double)a - b) * ((double)a - b)).Sum()) / norm, 0, 1e-5);
        }
    }

    [SharedFact]
    public void Merges_into_a_sentence_encoder()
    {
        using var folder = new TemporaryFolder();
        var source = Shared.Path("models", "minilm-l6");
        var model = TestModels.Of(source);
        var config = new LoraConfig { TaskType = "SEQ_CLS", InitLoraWeights = "false", LayersToTransform = [5] };
        var targets = TargetResolver.Resolve(config, model);
        using (var checkpoint = Checkpoint.Open(source))
        {
            var (weights, fresh) = AdapterInitializer.Create(config, targets, 1, _ => null);
            Assert.Equal(["classifier.weight", "classifier.bias"], fresh);
            AdapterMerger.Merge(checkpoint, model, config, weights, folder.File("merged"));
        }
        using var from = SafeTensorsFile.Open(Path.Combine(source, "model.safetensors"));
        using var merged = SafeTensorsFile.Open(folder.File("merged", "model.safetensors"));
        Assert.Equal(from.Tensors.Keys.Select(n => $"bert.{n}").Concat(["classifier.weight", "classifier.bias"]).Order(), merged.Tensors.Keys.Order());
        Assert.All(merged.Tensors.Values.Where(t => t.Name != "bert.embeddings.position_ids"), t => Assert.Equal(ElementType.F16, t.Type));
        var changed = from.Tensors.Keys.Where(n => !from.Bytes(n).SequenceEqual(merged.Bytes($"bert.{n}")));
        Assert.Equal(["encoder.layer.5.attention.self.query.weight", "encoder.layer.5.attention.self.value.weight"], changed.Order());
        Assert.Equal("BertForSequenceClassification", Config(folder.File("merged")).GetProperty("architectures")[0].GetString());
        Assert.True(File.Exists(folder.File("merged", "tokenizer.json")) && File.Exists(folder.File("merged", "vocab.txt")));
    }
}
