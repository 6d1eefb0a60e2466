namespace NativeLora.Cli.Demo;

/// <summary>Sizes of the demo. The step counts are made for two cores; results depend on nothing but these numbers and the seed.</summary>
internal sealed record DemoSettings
{
    public ulong Seed { get; init; }

    /// <summary>Whether this is <see cref="Quick"/>.</summary>
    public bool IsQuick { get; init; }

    public int Layers { get; init; } = 8;

    public int Hidden { get; init; } = 64;

    public int Intermediate { get; init; } = 160;

    public int Heads { get; init; } = 4;

    /// <summary>Symbols of a word.</summary>
    public int Word { get; init; } = 6;

    public int Rank { get; init; } = 8;

    public int BaseSteps { get; init; } = 240;

    public int BaseBatch { get; init; } = 64;

    public double BaseRate { get; init; } = 3e-3;

    public int TuneSteps { get; init; } = 80;

    public int TuneBatch { get; init; } = 32;

    public double TuneRate { get; init; } = 5e-3;

    /// <summary>Fine-tunings of each strategy, with other adapters and other data.</summary>
    public int Repeats { get; init; } = 3;

    /// <summary>Samples that layers are chosen by.</summary>
    public int SelectionSamples { get; init; } = 128;

    /// <summary>Held-out examples.</summary>
    public int TestExamples { get; init; } = 512;

    /// <summary>Tests in the course of a fine-tuning.</summary>
    public int Points { get; init; } = 8;

    /// <summary>Resamples for the stability of the choice.</summary>
    public int Resamples { get; init; } = 50;

    /// <summary>All of it in a few seconds: shows that everything works, but trains too little to compare anything.</summary>
    public static DemoSettings Quick { get; } = new()
    {
        IsQuick = true,
        Layers = 4,
        Hidden = 32,
        Intermediate = 64,
        Word = 4,
        BaseSteps = 60,
        BaseBatch = 32,
        TuneSteps = 12,
        TuneBatch = 16,
        Repeats = 2,
        TestExamples = 64,
        Points = 3,
        Resamples = 10,
    };
}
