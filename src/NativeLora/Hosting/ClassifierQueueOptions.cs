namespace NativeLora.Hosting;

/// <summary>How a <see cref="ClassifierQueue"/> gathers texts.</summary>
public sealed record ClassifierQueueOptions
{
    /// <summary>Texts that may wait; a call that finds no room is refused at once.</summary>
    public int Capacity { get; init; } = 256;

    /// <summary>Texts of a batch, at most. The classifier's own limit of 64 holds too.</summary>
    public int BatchSequences { get; init; } = 32;

    /// <summary>Tokens of a batch, at most; a longer text goes alone. Null: <see cref="InferenceOptions.BatchTokens"/>.</summary>
    public int? BatchTokens { get; init; }

    /// <summary>How long the first text of a batch waits for others while a session is free. Zero, which is nearly always best: not at all.</summary>
    public TimeSpan Delay { get; init; }

    /// <summary>Checks the ranges.</summary>
    /// <exception cref="InputException">A value makes no sense.</exception>
    public void Validate()
    {
        Require(Capacity is >= 1 and <= 1 << 20, "capacity of the queue", Capacity, "1 to 1048576");
        Require(BatchSequences >= 1, "number of texts of a batch", BatchSequences, "at least 1");
        Require(BatchTokens is null or >= 1, "number of tokens of a batch", BatchTokens ?? 0, "at least 1");
        Require(Delay >= TimeSpan.Zero && Delay <= TimeSpan.FromMinutes(1), "delay", Delay.TotalSeconds, "0 to 60 seconds");
    }

    private static void Require(bool good, string what, IFormattable value, string allowed)
    {
        if (!good)
            throw new InputException($"the {what} is {value.ToString(null, System.Globalization.CultureInfo.InvariantCulture)}; give {allowed}");
    }
}
