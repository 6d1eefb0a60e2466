using NativeLora.Devices.Cpu;
using NativeLora.Faults.Tasks;
using NativeLora.Generation;
using NativeLora.Hosting;

namespace NativeLora.Faults.Soak;

/// <summary>Classifiers and generators under random requests: sound ones, bad ones, cancelled ones, for one adapter and another.</summary>
internal sealed class SoakServe(int seed)
{
    private const int AdapterCount = 6;
    private long _answers, _refusals, _cancellations, _openings;
    private CpuDevice? _device;

    public bool Run(TimeSpan length, string folder) => new SoakRun("soak-serve", length, folder).Go(
        Work, () => _device?.AllocatedBytes ?? 0, () => Interlocked.Read(ref _answers),
        () => $"A classifier over a given device, one of two sessions and a generator of two, {AdapterCount} adapters on each base, three callers: {_answers} answers, {_refusals} bad requests refused, {_cancellations} cancelled or left half way; opened anew {_openings} times.");

    private void Work(CancellationToken stop)
    {
        using var classes = new TinyTask();
        using var texts = new TinyTask(isCausal: true);
        AdapterSource[] forClasses = [.. Enumerable.Range(0, AdapterCount).Select(i => new AdapterSource($"a{i}", classes.NewAdapter($"adapter-{i}", (ulong)i)))];
        AdapterSource[] forTexts = [.. Enumerable.Range(0, AdapterCount).Select(i => new AdapterSource($"a{i}", texts.NewAdapter($"adapter-{i}", (ulong)i)))];
        using var device = _device = new CpuDevice(1);
        for (var round = 0; !stop.IsCancellationRequested; round++)
        {
            using var counted = Classifier.Open(classes.Model, new InferenceOptions { Adapters = forClasses, Device = device });
            using var pooled = Classifier.Open(classes.Model, new InferenceOptions { Adapters = forClasses, Threads = 1, Sessions = 2 });
            using var generator = Generator.Open(texts.Model, new InferenceOptions { Adapters = forTexts, Threads = 1, Sessions = 2 });
            _openings++;
            using var piece = CancellationTokenSource.CreateLinkedTokenSource(stop);
            piece.CancelAfter(TimeSpan.FromSeconds(45));
            var failures = new List<Exception>();
            var callers = Enumerable.Range(0, 3).Select(c => new Thread(() =>
            {
                try
                {
                    var random = new Random(HashCode.Combine(seed, round, c));
                    while (!piece.IsCancellationRequested)
                    {
                        if (c == 2)
                            GenerateAsync(generator, random).GetAwaiter().GetResult();
                        else
                            Classify(random.Next(2) == 0 ? counted : pooled, random);
                    }
                }
                catch (Exception e)
                {
                    lock (failures)
                        failures.Add(e);
                    piece.Cancel();
                }
            })).ToList();
            callers.ForEach(t => t.Start());
            callers.ForEach(t => t.Join());
            if (failures.Count > 0)
                throw new AggregateException(failures);
        }
    }

    private void Classify(Classifier classifier, Random random)
    {
        var adapter = random.Next(AdapterCount + 2) switch { 0 => null, 1 => AdapterSource.None, var a => $"a{a - 2}" };
        using var cancel = new CancellationTokenSource();
        if (random.Next(8) == 0)
            cancel.CancelAfter(random.Next(3));
        try
        {
            switch (random.Next(6))
            {
                case 0:
                    classifier.Predict(TinyTask.Text(random), adapter, cancel.Token);
                    break;
                case 1:
                    Span<float> odds = stackalloc float[classifier.Classes];
                    classifier.Predict((ReadOnlySpan<int>)[2, 7, 9, 3], odds, adapter, cancellation: cancel.Token);
                    break;
                case 2:
                    string[] rows = [.. Enumerable.Range(0, random.Next(1, 20)).Select(_ => TinyTask.Text(random))];
                    classifier.Predict(rows, adapter, cancel.Token);
                    break;
                case 3:
                    classifier.PredictAsync(TinyTask.Text(random), adapter, cancel.Token).GetAwaiter().GetResult();
                    break;
                case 4:
                    Expect(() => classifier.Predict("waa", random.Next(2) == 0 ? "../../nobody" : "nobody"));
                    return;
                default:
                    Expect(() => classifier.Predict((ReadOnlySpan<int>)[2, 1_000_000 + random.Next(100), 3], new float[classifier.Classes]));
                    return;
            }
            Interlocked.Increment(ref _answers);
        }
        catch (OperationCanceledException)
        {
            Interlocked.Increment(ref _cancellations);
        }
    }

    private async Task GenerateAsync(Generator generator, Random random)
    {
        var adapter = random.Next(AdapterCount + 1) is > 0 and var a ? $"a{a - 1}" : AdapterSource.None;
        var options = new GenerationOptions { MaxNewTokens = random.Next(1, 16), Temperature = 1, Seed = (ulong)random.Next(), IgnoreEos = true };
        var leave = random.Next(5) == 0 ? random.Next(1, 4) : int.MaxValue;
        using var cancel = new CancellationTokenSource();
        if (random.Next(8) == 0)
            cancel.CancelAfter(random.Next(3));
        try
        {
            await foreach (var piece in generator.StreamAsync((int[])[5, 6, 7 + random.Next(8)], options, adapter, cancel.Token))
                if (--leave == 0)
                {
                    Interlocked.Increment(ref _cancellations);
                    return;
                }
            Interlocked.Increment(ref _answers);
        }
        catch (OperationCanceledException)
        {
            Interlocked.Increment(ref _cancellations);
        }
    }

    private void Expect(Action bad)
    {
        try
        {
            bad();
        }
        catch (InputException)
        {
            Interlocked.Increment(ref _refusals);
            return;
        }
        throw new InvalidOperationException("a bad request was answered");
    }
}
