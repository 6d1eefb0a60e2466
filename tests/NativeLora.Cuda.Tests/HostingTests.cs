using NativeLora.Adapters;
using NativeLora.Devices;
using NativeLora.Generation;
using NativeLora.Hosting;
using NativeLora.Tests.Hosting;
using NativeLora.Tests.Serving;

namespace NativeLora.Cuda.Tests;

/// <summary>What programs embed, on CUDA: the CPU's results by the same calls.</summary>
[Collection(Cuda.Collection)]
public sealed class HostingTests : IDisposable
{
    private const double Close = 1e-5;
    private static readonly int[] s_ids = [2, 5, 6, 7, 8, 3, 2, 9, 10, 3], s_lengths = [6, 4];

    private readonly SmallFolders _folders = new();

    public void Dispose() => _folders.Dispose();

    [CudaFact]
    public async Task AClassifierAndAnEmbedderGiveTheCpusNumbers()
    {
        AdapterSource adapter;
        using (var tuner = FineTuner.Open(_folders.Encoder, SmallFolders.Rows(16), new() { Epochs = 4, BatchSize = 8, LearningRate = 1e-2, Device = Cuda.Cpu }))
            adapter = (await tuner.TrainAsync([1, 3])).ToAdapter();
        var (expected, found) = (Of(Cuda.Cpu), Of(Cuda.Device));
        for (var i = 0; i < expected.Count; i++)
            Assert.InRange(ServedModel.Distance(found[i], expected[i]), 0, Close);
        Assert.True(ServedModel.Distance(found[0], found[1]) > 1e-3);

        List<float[]> Of(Device device)
        {
            var options = new InferenceOptions { Adapters = [adapter], Device = device };
            using var classifier = Classifier.Open(_folders.Encoder, options);
            var results = new List<float[]>();
            foreach (var name in (string?[])[null, AdapterSource.None])
            {
                var values = new float[2 * classifier.Classes];
                classifier.PredictBatch(s_ids, s_lengths, values, name);
                results.Add(values);
            }
            Assert.Contains(classifier.Predict(SmallFolders.Text(3)).Label, classifier.Labels);
            foreach (var pooling in Enum.GetValues<Pooling>())
            {
                using var embedder = Embedder.Open(_folders.Encoder, new EmbedderOptions { Pooling = pooling, Normalize = true, Inference = options with { Adapters = [] } });
                var values = new float[2 * embedder.Dimensions];
                embedder.EmbedBatch(s_ids, s_lengths, values);
                results.Add(values);
            }
            return results;
        }
    }

    [CudaFact]
    public async Task AGeneratorWritesTheCpusTokens()
    {
        AdapterSource adapter;
        using (var tuner = FineTuner.Open(_folders.Decoder, SmallFolders.Prompts(12), new() { Epochs = 4, BatchSize = 6, LearningRate = 1e-2, Device = Cuda.Cpu, Lora = l => l with { TargetModules = ModuleSelector.AllLinear } }))
            adapter = (await tuner.TrainAsync([0, 3])).ToAdapter();
        Assert.Equal(await Of(Cuda.Cpu), await Of(Cuda.Device));

        async Task<List<string>> Of(Device device)
        {
            using var generator = Generator.Open(_folders.Decoder, new InferenceOptions { Adapters = [adapter], Device = device });
            var texts = new List<string>();
            foreach (var name in (string?[])[null, AdapterSource.None])
            {
                var text = "";
                await foreach (var piece in generator.StreamAsync("ab:", new GenerationOptions { MaxNewTokens = 6, IgnoreEos = true }, name))
                    text += piece;
                texts.Add(text);
            }
            return texts;
        }
    }

    /// <summary>The tolerance is that of a training: see <see cref="TrainingTests"/>.</summary>
    [CudaFact]
    public async Task ATunerLearnsWhatItLearnsOnTheCpu()
    {
        var (expected, found) = (await Of(Cuda.Cpu), await Of(Cuda.Device));
        Assert.Equal(expected.Layers, found.Layers);
        Assert.Equal(expected.Summary.Loss, found.Summary.Loss, 1e-4 * Math.Abs(expected.Summary.Loss));
        Assert.Equal(expected.Evaluation!.Loss!.Value, found.Evaluation!.Loss!.Value, 1e-4 * expected.Evaluation.Loss.Value);
        Assert.Equal(expected.Weights.Tensors.Keys, found.Weights.Tensors.Keys);

        async Task<FineTunedModel> Of(Device device)
        {
            using var tuner = FineTuner.Open(_folders.Encoder, SmallFolders.Rows(16), new() { Epochs = 2, BatchSize = 8, Rank = 4, Evaluation = SmallFolders.Rows(4, 40), Device = device });
            return await tuner.TrainAsync();
        }
    }

    [CudaFact]
    public void ADeviceRunsOneCallAtATime() =>
        Assert.Contains("Sessions", Assert.Throws<InputException>(() => Classifier.Open(_folders.Encoder, new InferenceOptions { Device = Cuda.Device, Sessions = 2 })).Message);
}
