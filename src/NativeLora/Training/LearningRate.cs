namespace NativeLora.Training;

/// <summary>How the learning rate goes on after its warm-up.</summary>
public enum LearningRateKind
{
    /// <summary>Down to 0 in a straight line.</summary>
    Linear,

    /// <summary>Down to 0 along half a cosine.</summary>
    Cosine,

    /// <summary>The same at every step; there is no warm-up, as in Hugging Face's schedule of that name.</summary>
    Constant,

    /// <summary>The same at every step after the warm-up.</summary>
    ConstantWithWarmup,
}

/// <summary>The learning rate of each step, as Hugging Face's schedules have it: the warm-up begins at 0.</summary>
public sealed class LearningRate
{
    /// <summary>Sets up a schedule.</summary>
    /// <param name="kind">Its form.</param>
    /// <param name="peak">The rate after the warm-up.</param>
    /// <param name="totalSteps">Optimizer steps of the whole training.</param>
    /// <param name="warmupSteps">Steps of the warm-up; see <see cref="StepsOf"/>.</param>
    /// <exception cref="InputException">A number is out of range.</exception>
    public LearningRate(LearningRateKind kind, double peak, int totalSteps, int warmupSteps)
    {
        if (!(peak >= 0 && double.IsFinite(peak)))
            throw new InputException($"the learning rate is {peak}; give a number from 0 on");
        if (totalSteps < 0 || warmupSteps < 0)
            throw new InputException($"a schedule of {totalSteps} steps, {warmupSteps} of them warm-up, cannot be; give numbers from 0 on");
        Kind = kind;
        Peak = peak;
        TotalSteps = totalSteps;
        WarmupSteps = warmupSteps;
    }

    /// <summary>The form.</summary>
    public LearningRateKind Kind { get; }

    /// <summary>The rate after the warm-up.</summary>
    public double Peak { get; }

    /// <summary>Optimizer steps of the whole training.</summary>
    public int TotalSteps { get; }

    /// <summary>Steps of the warm-up.</summary>
    public int WarmupSteps { get; }

    /// <summary>The schedule of a name: <c>linear</c>, <c>cosine</c>, <c>constant</c> or <c>constant_with_warmup</c>.</summary>
    /// <exception cref="InputException">There is none of that name.</exception>
    public static LearningRateKind KindOf(string name) => name switch
    {
        "linear" => LearningRateKind.Linear,
        "cosine" => LearningRateKind.Cosine,
        "constant" => LearningRateKind.Constant,
        "constant_with_warmup" => LearningRateKind.ConstantWithWarmup,
        _ => throw new InputException($"no learning rate schedule {name}; the schedules are linear, cosine, constant, constant_with_warmup"),
    };

    /// <summary>Warm-up steps of a ratio, rounded up in doubles as the Trainer does: 100 · 0.07 gives 8.</summary>
    /// <exception cref="InputException">The ratio is not from 0 to 1.</exception>
    public static int StepsOf(int totalSteps, double ratio) =>
        ratio is >= 0 and <= 1 ? (int)Math.Ceiling(totalSteps * ratio) : throw new InputException(
            $"the warm-up ratio is {ratio}; give a number from 0 to 1");

    /// <summary>The rate of a step, from 0; after the last step it stays where it ended.</summary>
    public double At(int step)
    {
        if (Kind == LearningRateKind.Constant)
            return Peak;
        if (step < WarmupSteps)
            return Peak * ((double)step / Math.Max(1, WarmupSteps));
        if (Kind == LearningRateKind.ConstantWithWarmup)
            return Peak;
        if (step >= TotalSteps)
            return 0;
        double rest = Math.Max(1, TotalSteps - WarmupSteps);
        return Kind == LearningRateKind.Linear
            ? Peak * ((TotalSteps - step) / rest)
            : Peak * Math.Max(0, 0.5 * (1 + Math.Cos(Math.PI * ((step - WarmupSteps) / rest))));
    }
}
