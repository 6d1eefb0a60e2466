using NativeLora.Data;
using NativeLora.Data.Tokenizers;
using NativeLora.Devices.Cpu;
using NativeLora.Hosting;
using NativeLora.Models;
using NativeLora.Selection;
using NativeLora.Tests.Checkpoints;
using NativeLora.Tests.Serving;

namespace NativeLora.Tests.Hosting;

/// <summary>Embeddings are pooled rows of the last hidden state.</summary>
public sealed class EmbedderTests
{
    private static readonly string[] Texts = ["The cat sits on the mat.", "A dog.", "Rates of interest rose by a quarter of a point in May."];

    [SharedTheory]
    [InlineData(Pooling.Mean, TokenRule.Mean, "minilm-l6")]
    [InlineData(Pooling.Cls, TokenRule.Cls, "minilm-l6")]
    [InlineData(Pooling.LastToken, TokenRule.TrueLast, "smollm2-135m")]
    public void Embeddings_are_the_features_of_the_last_layer(Pooling pooling, TokenRule rule, string name)
    {
        var folder = Shared.Path("models", name);
        using var device = new CpuDevice(2);
        using var pretrained = PretrainedModel.Open(folder, device);
        var tokenizer = TokenizerLoader.FromFolder(folder);
        var examples = Texts.Select(t => tokenizer.Encode(t, null, 64)).Select(t => EncodedExample.Text(t, poolIndex: rule == TokenRule.TrueLast ? t.Ids.Length - 1 : 0)).ToList();
        var features = FeatureExtractor.Extract(pretrained, examples, new FeatureOptions { Token = rule });
        using var embedder = Embedder.Open(folder, new EmbedderOptions { Pooling = pooling, Normalize = false, Inference = new InferenceOptions { MaxLength = 64, Threads = 2 } });
        var got = embedder.Embed(Texts);
        Assert.Equal(pretrained.Model.HiddenSize, embedder.Dimensions);
        for (var i = 0; i < Texts.Length; i++)
        {
            var row = got.AsSpan(i * embedder.Dimensions, embedder.Dimensions).ToArray();
            Assert.InRange(ServedModel.Distance(row, features[^1].Row(i).ToArray()), 0, 1e-5);
        }
    }

    [SharedFact]
    public async Task Normalised_embeddings_have_length_1_and_like_texts_are_near()
    {
        using var embedder = Embedder.Open(Shared.Path("models", "minilm-l6"), new EmbedderOptions { Normalize = true });
        Assert.Equal(Pooling.Mean, embedder.Pooling);
        var cat = new float[embedder.Dimensions];
        embedder.Embed("A cat sleeps on the sofa.", cat);
        Assert.Equal(1, cat.Sum(x => x * x), 1e-4);
        var kitten = await embedder.EmbedAsync("A kitten is napping on the couch.");
        var rates = await embedder.EmbedAsync("The central bank raised interest rates.");
        Assert.True(Dot(cat, kitten) > Dot(cat, rates) + 0.3);
        Assert.Throws<ArgumentException>(() => embedder.Embed("text", new float[3]));
    }

    [SharedFact]
    public void Files_of_sentence_transformers_are_heeded()
    {
        using var folder = new TemporaryFolder();
        var model = Directory.CreateDirectory(folder.File("model")).FullName;
        foreach (var file in Directory.GetFiles(Shared.Path("fixtures", "models", "bert-cls", "model")))
            File.Copy(file, Path.Combine(model, Path.GetFileName(file)));
        Directory.CreateDirectory(Path.Combine(model, "1_Pooling"));
        var pooling = Path.Combine(model, "1_Pooling", "config.json");
        File.WriteAllText(pooling, """{"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": false}""");
        File.WriteAllText(Path.Combine(model, "modules.json"), """[{"type": "sentence_transformers.models.Normalize"}]""");
        File.WriteAllText(Path.Combine(model, "sentence_bert_config.json"), """{"max_seq_length": 12}""");
        using (var embedder = Embedder.Open(model))
            Assert.Equal((Pooling.Cls, true, 12), (embedder.Pooling, embedder.IsNormalized, embedder.MaxLength));
        File.WriteAllText(pooling, """{"pooling_mode_max_tokens": true}""");
        Assert.Contains("pooling_mode_max_tokens", Assert.Throws<InputException>(() => Embedder.Open(model)).Message);
    }

    [SharedFact]
    public void A_call_with_token_ids_allocates_nothing()
    {
        using var embedder = Embedder.Open(Shared.Path("fixtures", "models", "bert-cls", "model"), new EmbedderOptions { Normalize = true });
        int[] ids = [5, 6, 7, 8];
        var values = new float[embedder.Dimensions];
        long Allocated()
        {
            var before = GC.GetAllocatedBytesForCurrentThread();
            for (var i = 0; i < 20; i++)
                embedder.Embed(ids, values);
            return GC.GetAllocatedBytesForCurrentThread() - before;
        }
        Allocated();
        Assert.Equal(0, Allocated());
    }

    private static float Dot(float[] a, float[] b) => a.Zip(b, (x, y) => x * y).Sum();
}
