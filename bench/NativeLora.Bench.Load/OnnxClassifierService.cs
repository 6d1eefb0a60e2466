using System.Numerics.Tensors;
using System.Threading.Channels;
using Microsoft.ML.OnnxRuntime;
using NativeLora.Checkpoints;
using NativeLora.Data.Tokenizers;
using NativeLora.Hosting;
using NativeLora.Sample.Web;

namespace NativeLora.Bench.Load;

/// <summary>
/// The sample's classifier over ONNX Runtime: the same tokenizer, the same bounded queue, what waits gathered into one padded batch as a
/// session comes free, or each text alone. The encoder is the ONNX file; pooler and classifier of the merged model, a thousandth of the
/// work, are vector products here.
/// </summary>
internal sealed class OnnxClassifierService : IClassifierService
{
    private readonly Data.ITokenizer _tokenizer;
    private readonly InferenceSession _session;
    private readonly RunOptions _run = new();
    private readonly Channel<Request> _queue;
    private readonly Task[] _workers;
    private readonly int _hidden, _maxLength, _sequences, _tokens;
    private readonly float[] _pooler, _poolerBias, _classifier, _classifierBias;
    private readonly string[] _labels;

    /// <param name="options">Settings; the model is the merged one, for its head.</param>
    /// <param name="encoder">The ONNX file, which stays where it is: its weights are in a file beside it.</param>
    /// <param name="alone">Whether each text goes alone.</param>
    public OnnxClassifierService(ServiceOptions options, string encoder, bool alone)
    {
        var folder = options.Model ?? throw new InputException("no model is given; use --Model FOLDER");
        _tokenizer = TokenizerLoader.FromFolder(folder);
        (_maxLength, _sequences, _tokens) = (options.MaxLength, alone ? 1 : options.BatchSequences, options.BatchTokens);
        using (var file = SafeTensorsFile.Open(Path.Combine(folder, "model.safetensors")))
        {
            float[] Read(string name) => file.ReadFloat32(file.Tensors.Keys.First(k => k.EndsWith(name, StringComparison.Ordinal)));
            (_pooler, _poolerBias) = (Read("pooler.dense.weight"), Read("pooler.dense.bias"));
            (_classifier, _classifierBias) = (Read("classifier.weight"), Read("classifier.bias"));
        }
        _hidden = _poolerBias.Length;
        _labels = [.. HfConfig.Open(Path.Combine(folder, "config.json")).Id2Label.OrderBy(l => l.Key).Select(l => l.Value)];
        using var settings = new SessionOptions
        {
            IntraOpNumThreads = options.Threads ?? Math.Max(1, Environment.ProcessorCount / options.Sessions),
            InterOpNumThreads = 1,
            ExecutionMode = ExecutionMode.ORT_SEQUENTIAL,
            GraphOptimizationLevel = GraphOptimizationLevel.ORT_ENABLE_ALL,
        };
        _session = new InferenceSession(encoder, settings);
        _queue = Channel.CreateBounded<Request>(new BoundedChannelOptions(options.QueueLength) { FullMode = BoundedChannelFullMode.Wait });
        _workers = [.. Enumerable.Range(0, options.Sessions).Select(_ => Task.Run(WorkAsync))];
        ClassifyAsync([("ready", null)], null, CancellationToken.None).GetAwaiter().GetResult();
    }

    public IReadOnlyList<string> Adapters => [];

    public int Waiting => _queue.Reader.Count;

    public bool HasAdapter(string name) => name.Length == 0;

    public long AdapterBytes(string name) => 0;

    public async Task<IReadOnlyList<Classification>> ClassifyAsync(IReadOnlyList<(string Text, string? Pair)> texts, string? adapter, CancellationToken cancellation)
    {
        var requests = new Request[texts.Count];
        for (var i = 0; i < requests.Length; i++)
        {
            requests[i] = new Request(_tokenizer.Encode(texts[i].Text, texts[i].Pair, _maxLength));
            if (!_queue.Writer.TryWrite(requests[i]))
                throw new QueueFullException(_queue.Reader.Count, _queue.Reader.Count);
        }
        var results = new Classification[requests.Length];
        for (var i = 0; i < results.Length; i++)
            results[i] = await requests[i].Result.Task.WaitAsync(cancellation);
        return results;
    }

    private async Task WorkAsync()
    {
        var batch = new List<Request>();
        while (await _queue.Reader.WaitToReadAsync())
        {
            batch.Clear();
            var longest = 0;
            // Padding counts: a batch is as wide as its longest text.
            while (batch.Count < _sequences && _queue.Reader.TryPeek(out var next)
                && (batch.Count == 0 || Math.Max(longest, next.Tokens.Ids.Length) * (batch.Count + 1) <= _tokens) && _queue.Reader.TryRead(out next))
            {
                batch.Add(next);
                longest = Math.Max(longest, next.Tokens.Ids.Length);
            }
            if (batch.Count == 0)
                continue;
            try
            {
                Run(batch, longest);
            }
            catch (OnnxRuntimeException error)
            {
                batch.ForEach(r => r.Result.TrySetException(error));
            }
        }
    }

    private void Run(List<Request> batch, int width)
    {
        long[] ids = new long[batch.Count * width], mask = new long[ids.Length], types = new long[ids.Length];
        for (var r = 0; r < batch.Count; r++)
            for (var t = 0; t < batch[r].Tokens.Ids.Length; t++)
            {
                var at = (r * width) + t;
                (ids[at], mask[at], types[at]) = (batch[r].Tokens.Ids[t], 1, batch[r].Tokens.TypeIds[t]);
            }
        long[] shape = [batch.Count, width];
        using OrtValue first = OrtValue.CreateTensorValueFromMemory(ids, shape), second = OrtValue.CreateTensorValueFromMemory(mask, shape), third = OrtValue.CreateTensorValueFromMemory(types, shape);
        using var outputs = _session.Run(_run, ["input_ids", "attention_mask", "token_type_ids"], [first, second, third], ["last_hidden_state"]);
        var states = outputs[0].GetTensorDataAsSpan<float>();
        for (var r = 0; r < batch.Count; r++)
            batch[r].Result.TrySetResult(Head(states.Slice(r * width * _hidden, _hidden)));
    }

    private Classification Head(ReadOnlySpan<float> first)
    {
        var pooled = new float[_hidden];
        Product(_pooler, _poolerBias, first, pooled);
        TensorPrimitives.Tanh(pooled, pooled);
        var row = new float[_labels.Length];
        Product(_classifier, _classifierBias, pooled, row);
        TensorPrimitives.Subtract(row, TensorPrimitives.Max<float>(row), row);
        TensorPrimitives.SoftMax(row, row);
        var best = TensorPrimitives.IndexOfMax<float>(row);
        return new Classification(new Prediction(best, _labels[best], row[best]), _labels, row);
    }

    private static void Product(float[] weight, float[] bias, ReadOnlySpan<float> x, float[] y)
    {
        for (var o = 0; o < y.Length; o++)
            y[o] = bias[o] + TensorPrimitives.Dot(weight.AsSpan(o * x.Length, x.Length), x);
    }

    public async ValueTask DisposeAsync()
    {
        _queue.Writer.TryComplete();
        await Task.WhenAll(_workers);
        _session.Dispose();
        _run.Dispose();
    }

    private sealed record Request(Data.TokenizedText Tokens)
    {
        public TaskCompletionSource<Classification> Result { get; } = new(TaskCreationOptions.RunContinuationsAsynchronously);
    }
}
