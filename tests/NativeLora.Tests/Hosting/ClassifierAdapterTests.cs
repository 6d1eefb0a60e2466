using NativeLora.Hosting;
using NativeLora.Tests.Serving;

namespace NativeLora.Tests.Hosting;

/// <summary>An adapter for each sequence, and adapters that come and go while the classifier is in use.</summary>
public sealed class ClassifierAdapterTests
{
    private const double Close = 1e-5;

    private static string ModelOf(string name) => Shared.Path("fixtures", "models", name, "model");

    private static (int[] Ids, int[] Lengths) Sequences(int count)
    {
        int[] lengths = [.. Enumerable.Range(0, count).Select(s => 3 + (s % 6))];
        return ([.. lengths.SelectMany((l, s) => Enumerable.Range(0, l).Select(t => 4 + ((s * 7) + (t * 3)) % 40))], lengths);
    }

    [SharedTheory]
    [InlineData("bert-cls", "lora-all", "dora-selected", "rslora-selected", "pissa-selected")]
    [InlineData("llama-cls", "lora-selected")]
    [InlineData("deberta-v3-cls", "lora-selected")]
    public void Each_sequence_has_its_own(string name, params string[] variants)
    {
        using var served = new ServedModel(name);
        AdapterSource[] adapters = [.. variants.Select(v => new AdapterSource(v, served.Final(v)))];
        using var classifier = Classifier.Open(ModelOf(name), new InferenceOptions { Adapters = adapters, BatchTokens = 48, MaxLength = 8, Threads = 2 });
        var (ids, lengths) = Sequences(20);
        string?[] names = [.. Enumerable.Range(0, 20).Select(s => (s % (variants.Length + 2)) switch
        {
            0 => null,
            1 => AdapterSource.None,
            var v => variants[v - 2],
        })];
        var got = new float[20 * classifier.Classes];
        classifier.PredictBatch(ids, lengths, names, got);
        var row = new float[classifier.Classes];
        for (int s = 0, token = 0; s < 20; token += lengths[s++])
        {
            classifier.Predict(ids.AsSpan(token, lengths[s]), row, names[s]);
            Assert.InRange(ServedModel.Distance(got.AsSpan(s * row.Length, row.Length).ToArray(), row), 0, Close);
        }
        Assert.Throws<ArgumentException>(() => classifier.PredictBatch(ids, lengths, names.AsSpan(1), got));
        names[4] = "other";
        Assert.Contains("there is no adapter", Assert.Throws<InputException>(() => classifier.PredictBatch(ids, lengths, names, got)).Message);
    }

    [SharedFact]
    public void An_adapter_for_each_sequence_allocates_nothing()
    {
        using var served = new ServedModel("bert-cls");
        using var classifier = Classifier.Open(ModelOf("bert-cls"), new InferenceOptions { Adapters = [new("a", served.Final("lora-all")), new("b", served.Final("dora-selected"))], Threads = 2 });
        var (ids, lengths) = Sequences(12);
        string?[] names = [.. Enumerable.Range(0, 12).Select(s => s % 3 == 0 ? "a" : s % 3 == 1 ? "b" : AdapterSource.None)];
        var values = new float[12 * classifier.Classes];
        long Allocated()
        {
            var before = GC.GetAllocatedBytesForCurrentThread();
            for (var i = 0; i < 20; i++)
                classifier.PredictBatch(ids, lengths, names, values);
            return GC.GetAllocatedBytesForCurrentThread() - before;
        }
        Allocated();
        Assert.Equal(0, Allocated());
    }

    [SharedTheory]
    [InlineData(false)]
    [InlineData(true)]
    public void Adapters_come_and_go(bool packed)
    {
        using var served = new ServedModel("bert-cls");
        string[] variants = ["lora-all", "dora-selected", "rslora-selected", "lora-patterns"];
        AdapterSource Source(string v) => new(v, served.Final(v));
        using var together = Classifier.Open(ModelOf("bert-cls"), new InferenceOptions { Adapters = [.. variants.Select(Source)], Threads = 1 });
        using var classifier = Classifier.Open(ModelOf("bert-cls"), new InferenceOptions { Sessions = 2, Threads = 1, PackWeights = packed });
        var (ids, lengths) = Sequences(8);
        float[] Of(Classifier from, string? name)
        {
            var values = new float[8 * from.Classes];
            from.PredictBatch(ids, lengths, values, name);
            return values;
        }
        var bare = Of(classifier, null);
        foreach (var variant in variants)
        {
            Assert.False(classifier.HasAdapter(variant));
            classifier.AddAdapter(Source(variant));
            Assert.True(classifier.HasAdapter(variant));
            Assert.Equal(together.LabelsOf(variant), classifier.LabelsOf(variant));
            Assert.Equal(together.AdapterBytes(variant), classifier.AdapterBytes(variant));
        }
        Assert.Equal(variants, classifier.Adapters);
        Assert.Contains("already", Assert.Throws<InputException>(() => classifier.AddAdapter(Source("lora-all"))).Message);
        Assert.Contains("no such folder", Assert.Throws<InputException>(() => classifier.AddAdapter(new("x", served.Final("lora-all") + "x"))).Message);
        foreach (var variant in variants)
            Assert.InRange(ServedModel.Distance(Of(classifier, variant), Of(together, variant)), 0, Close);
        Assert.InRange(ServedModel.Distance(Of(classifier, AdapterSource.None), bare), 0, Close);
        // The first that is left acts where none is named.
        Assert.True(classifier.RemoveAdapter("lora-all"));
        Assert.False(classifier.RemoveAdapter("lora-all"));
        Assert.Equal(Of(classifier, "dora-selected"), Of(classifier, null));
        Assert.Throws<InputException>(() => Of(classifier, "lora-all"));
        foreach (var variant in variants[1..])
        {
            Assert.InRange(ServedModel.Distance(Of(classifier, variant), Of(together, variant)), 0, Close);
            Assert.True(classifier.RemoveAdapter(variant));
        }
        Assert.Empty(classifier.Adapters);
        Assert.InRange(ServedModel.Distance(Of(classifier, null), bare), 0, Close);
    }

    /// <summary>What an adapter takes is there once, and free again when it is gone from all sessions.</summary>
    [SharedFact]
    public void Memory_is_an_adapters_tensors_and_comes_back()
    {
        using var served = new ServedModel("bert-cls");
        using var device = new NativeLora.Devices.Cpu.CpuDevice(1);
        using var classifier = Classifier.Open(ModelOf("bert-cls"), new InferenceOptions { Device = device, Adapters = [new("first", served.Final("lora-all"))] });
        var before = device.AllocatedBytes;
        var one = classifier.AdapterBytes("first");
        Assert.True(one > 0);
        for (var i = 0; i < 20; i++)
        {
            classifier.AddAdapter(new AdapterSource($"{i}", served.Final("lora-all")));
            Assert.Equal(one, classifier.AdapterBytes($"{i}"));
            Assert.Equal(before + ((i + 1) * one), device.AllocatedBytes);
        }
        for (var i = 0; i < 20; i++)
            Assert.True(classifier.RemoveAdapter($"{i}"));
        Assert.Equal(before, device.AllocatedBytes);
    }
}
