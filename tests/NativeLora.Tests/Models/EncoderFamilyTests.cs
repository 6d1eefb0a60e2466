using System.Text.Json.Nodes;
using NativeLora.Adapters;
using NativeLora.Checkpoints;
using NativeLora.Cli.Verify;
using NativeLora.Data;
using NativeLora.Devices;
using NativeLora.Devices.Cpu;
using NativeLora.Graphs;
using NativeLora.Models;
using NativeLora.Tests.Checkpoints;
using NativeLora.Training;

namespace NativeLora.Tests.Models;

/// <summary>What configs and checkpoints of ModernBERT, DistilBERT, GPT-2 and XLM-RoBERTa may say, beside the goldens.</summary>
public class EncoderFamilyTests
{
    [Theory]
    [InlineData("modernbert", "layer_types", """["full_attention"]""", "layer_types")]
    [InlineData("modernbert", "layer_types", """["full_attention", "x", "full_attention", "full_attention"]""", "\"x\"")]
    [InlineData("modernbert", "classifier_pooling", "\"max\"", "\"max\"")]
    [InlineData("modernbert", "hidden_activation", "\"mish\"", "\"mish\"")]
    [InlineData("modernbert", "hidden_size", "18", "even")]
    [InlineData("modernbert", "local_attention", "0", "local_attention")]
    [InlineData("distilbert", "dim", "15", "dim")]
    [InlineData("distilbert", "n_layers", null, "n_layers")]
    [InlineData("distilbert", "activation", "1", "activation")]
    [InlineData("gpt2", "add_cross_attention", "true", "add_cross_attention")]
    [InlineData("gpt2", "n_embd", "\"wide\"", "n_embd")]
    [InlineData("gpt2", "n_inner", "-1", "n_inner")]
    public void ABadConfigIsRefusedInOneLine(string kind, string key, string? value, string word)
    {
        var error = Assert.Throws<InputException>(() => ModelRegistry.Create(TinyModel.Config(kind, json => json[key] = value is null ? null : JsonNode.Parse(value))));
        Assert.Contains(word, error.Message);
        Assert.DoesNotContain('\n', error.Message);
    }

    [Fact]
    public void Gpt2IsFourTimesAsWideInsideWhereNothingIsSaid()
    {
        Assert.Equal(64, ModelRegistry.Create(TinyModel.Config("gpt2", json => json["n_inner"] = null)).IntermediateSize);
        Assert.Equal(24, ModelRegistry.Create(TinyModel.Config("gpt2")).IntermediateSize);
    }

    private static float[] Logits(PretrainedModel pretrained, ModelHead head, PackedBatch batch)
    {
        var graph = pretrained.NewGraph(Trainables.None);
        var logits = pretrained.Model.Build(graph, new BuildOptions { Head = head, MaxLength = batch.LongestSequence }).Logits!;
        using var session = new Session(pretrained.Device, MemoryPlan.For(graph, TinyModel.Capacity(batch)), pretrained.Weights, null);
        session.Load(batch);
        session.Run();
        return session.Read(logits);
    }

    private static float[] Logits(TinyModel tiny, Device device, int seed = 1)
    {
        using var pretrained = tiny.Open(device);
        return Logits(pretrained, TinyModel.Head(tiny.Model), TinyModel.Batch(tiny.Model, seed, 9, 4));
    }

    [Theory]
    [InlineData("distilbert")]
    [InlineData("modernbert")]
    [InlineData("gpt2")]
    public void ABareBackboneHasNoPrefix(string kind)
    {
        using var device = new CpuDevice(1);
        using var whole = new TinyModel(kind);
        using var bare = new TinyModel(kind, change: t => t.Name.StartsWith(whole.Model.BackbonePrefix, StringComparison.Ordinal)
            ? TensorToWrite.Streamed(t.Name[whole.Model.BackbonePrefix.Length..], t.Type, t.Shape, t.WriteTo)
            : t);
        Assert.Equal(Logits(whole, device), Logits(bare, device));
    }

    [Fact]
    public void LayerTypesAreWhatEveryNthLayerMeans()
    {
        using var device = new CpuDevice(1);
        using var older = new TinyModel("modernbert");
        using var newer = new TinyModel("modernbert", edit: json =>
        {
            json.Remove("global_attn_every_n_layers");
            json.Remove("global_rope_theta");
            json.Remove("local_rope_theta");
            json["layer_types"] = new JsonArray("full_attention", "sliding_attention", "sliding_attention", "full_attention");
            json["rope_parameters"] = new JsonObject
            {
                ["full_attention"] = new JsonObject { ["rope_type"] = "default", ["rope_theta"] = 160.0 },
                ["sliding_attention"] = new JsonObject { ["rope_type"] = "default", ["rope_theta"] = 10.0 },
            };
        });
        using var other = new TinyModel("modernbert", edit: json => json["global_attn_every_n_layers"] = 2);
        Assert.Equal(Logits(older, device), Logits(newer, device));
        Assert.NotEqual(Logits(older, device), Logits(other, device));
    }

    [Fact]
    public void Gpt2ClassifiesByItsLastToken()
    {
        using var device = new CpuDevice(1);
        using var tiny = new TinyModel("gpt2");
        using var pretrained = tiny.Open(device);
        var batch = TinyModel.Batch(tiny.Model, 2, 6, 3);
        var before = Logits(pretrained, ModelHead.SequenceClassification, batch);
        Assert.Equal(["score.weight"], pretrained.Weights.FreshlyInitialised);
        batch.TokenIds[5] = (batch.TokenIds[5] + 1) % tiny.Model.VocabularySize;
        var after = Logits(pretrained, ModelHead.SequenceClassification, batch);
        Assert.Equal(4, before.Length);
        Assert.NotEqual(before[0], after[0]);
        Assert.Equal(before[2..], after[2..]);
    }

    /// <summary>The magnitudes are the norms of the columns of weights stored [in, out].</summary>
    [Fact]
    public void ANewDoraAdapterChangesNothing()
    {
        using var device = new CpuDevice(1);
        using var tiny = new TinyModel("gpt2");
        using var pretrained = tiny.Open(device);
        var config = new LoraConfig { Rank = 3, UseDora = true, TargetModules = ModuleSelector.AllLinear };
        using var model = TrainableModel.WithAdapters(pretrained, ModelHead.LanguageModel, config, seed: 3);
        var batch = TinyModel.Batch(tiny.Model, 1, 9, 4);
        var (graph, outputs) = model.Build(new BuildOptions { Head = ModelHead.LanguageModel, MaxLength = 9 });
        using var session = model.NewSession(graph, TinyModel.Capacity(batch));
        session.Load(batch);
        session.Run();
        var got = session.Read(outputs.Logits!);
        Assert.All(Logits(tiny, device).Zip(got), p => Assert.Equal(p.First, p.Second, 1e-5f));
        Assert.Equal(16, model.Parameters.Names.Count(n => n.EndsWith("lora_magnitude_vector", StringComparison.Ordinal)));
    }

    /// <summary>Another program's file: keys of older versions, labels' ids as texts.</summary>
    [SharedFact]
    public void AStrangersModernBertOpensAndRuns()
    {
        using var device = new CpuDevice(1);
        using var pretrained = PretrainedModel.Open(Shared.Path("data", "tiny_random", "jammi", "tiny_modernbert_classifier"), device);
        var batch = TinyModel.Batch(pretrained.Model, 4, 128, 3, 70);
        var logits = Logits(pretrained, ModelHead.SequenceClassification, batch);
        Assert.Equal(6, logits.Length);
        Assert.All(logits, v => Assert.True(float.IsFinite(v)));
        Assert.NotEqual(logits[..2], logits[2..4]);
        Assert.Empty(pretrained.Weights.FreshlyInitialised);
        Assert.Equal("ModernBertForSequenceClassification", pretrained.Modules(ModelHead.SequenceClassification).Architecture);
    }

    [SharedFact]
    public void XlmRobertaIsRobertaUnderItsOwnName()
    {
        using var folder = new TemporaryFolder();
        var source = Shared.Path("fixtures", "models", "roberta-cls");
        Directory.CreateDirectory(folder.File("model"));
        foreach (var file in new[] { "inputs.safetensors", "outputs.safetensors", "grads.safetensors", Path.Combine("model", "model.safetensors") })
            File.WriteAllBytes(folder.File(file), File.ReadAllBytes(Path.Combine(source, file)));
        var config = JsonNode.Parse(File.ReadAllText(Path.Combine(source, "model", "config.json")))!.AsObject();
        config["model_type"] = "xlm-roberta";
        folder.Write(Path.Combine("model", "config.json"), config.ToJsonString());

        using var output = new StringWriter();
        using var device = new CpuDevice(1);
        new CaseVerifier(folder.Path, device, new VerifyReport(output)).Run();
        var lines = output.ToString().Split('\n', StringSplitOptions.RemoveEmptyEntries | StringSplitOptions.TrimEntries);
        Assert.All(lines, line => Assert.EndsWith(" pass", line));
        Assert.Contains(lines, line => line.Contains(" plain gradients[", StringComparison.Ordinal));

        var modules = PretrainedModel.Modules(ModelRegistry.Create(HfConfig.Open(folder.File("model"))), ModelHead.SequenceClassification);
        Assert.Equal("XLMRobertaForSequenceClassification", modules.Architecture);
        var adapted = TargetResolver.Resolve(new LoraConfig { TaskType = "SEQ_CLS" }, modules).Adapted;
        Assert.Equal(10, adapted.Count);
        Assert.All(adapted, a => Assert.Matches("(query|value)$", a.Name));
    }
}
