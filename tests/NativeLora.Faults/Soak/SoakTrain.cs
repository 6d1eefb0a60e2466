using NativeLora.Devices.Cpu;
using NativeLora.Faults.Tasks;
using NativeLora.Tests.Checkpoints;
using NativeLora.Tests.Training;
using NativeLora.Training;

namespace NativeLora.Faults.Soak;

/// <summary>One training that goes on all the time: steps, evaluations, checkpoints, and every few seconds an interruption and a new process's worth of opening.</summary>
internal sealed class SoakTrain(int seed)
{
    private long _steps, _pieces, _checkpoints;
    private CpuDevice? _device;

    public bool Run(TimeSpan length, string folder) => new SoakRun("soak-train", length, folder).Go(
        Work, () => _device?.AllocatedBytes ?? 0, () => Interlocked.Read(ref _steps),
        () => $"A training of one thread that was interrupted and resumed {_pieces} times at random moments: {_steps} steps, {_checkpoints} checkpoints; models, sessions and files are opened anew each time, on one device.");

    private void Work(CancellationToken stop)
    {
        using var place = new TemporaryFolder();
        var random = new Random(seed);
        using var device = _device = new CpuDevice(1);
        var (train, dev) = (TinyModel.Examples(false, 64, 1), TinyModel.Examples(false, 16, 2));
        var isFirst = true;
        while (!stop.IsCancellationRequested)
        {
            using var tiny = TinyModel.Open(place.File("model"), isCausal: false, device: device);
            var options = new TrainerOptions
            {
                OutputFolder = place.File("out"),
                MaxSteps = 100_000_000,
                BatchSize = 4,
                AccumulationSteps = 2,
                LearningRate = 1e-4,
                Schedule = LearningRateKind.Constant,
                EvaluateEvery = 500,
                SaveEvery = 2000,
                LogEvery = 100_000,
                KeepBest = "loss",
                Resume = !isFirst,
            };
            using var piece = CancellationTokenSource.CreateLinkedTokenSource(stop);
            piece.CancelAfter(TimeSpan.FromSeconds(0.05 + random.NextDouble() * 15));
            using var trainer = new Trainer(tiny.Model, train, options, dev, observer: new Counter(this));
            try
            {
                trainer.Run(piece.Token);
            }
            catch (TrainingInterruptedException)
            {
                isFirst = false;
            }
            _pieces++;
        }
    }

    private sealed class Counter(SoakTrain soak) : ITrainingObserver
    {
        public void OnStep(in TrainingProgress progress) => Interlocked.Increment(ref soak._steps);

        public void OnCheckpoint(int step, string checkpoint) => soak._checkpoints++;
    }
}
