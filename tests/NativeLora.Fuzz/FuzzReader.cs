namespace NativeLora.Fuzz;

/// <summary>Something that reads files from outside.</summary>
/// <param name="Name">Its name on the command line.</param>
/// <param name="Reads">What it reads, for the table.</param>
/// <param name="Corpus">Makes the valid inputs that are changed.</param>
/// <param name="Open">Makes what reads a folder: it succeeds, or throws what it may.</param>
public sealed record FuzzReader(string Name, string Reads, Func<IReadOnlyList<FuzzCase>> Corpus, Func<Action<string>> Open)
{
    /// <summary>Bytes that an input may allocate, beside <see cref="FuzzLimits.PerByte"/> for each of its own.</summary>
    public long Allocates { get; init; } = 16 << 20;

    /// <summary>Whether it writes into the folder, so that each input needs one of its own.</summary>
    public bool Writes { get; init; }

    /// <summary>Whether a server's nonsense may end in a <see cref="RunException"/>.</summary>
    public bool MayFail { get; init; }

    /// <summary>Whether a refusal begins with, or holds, the name of a file of the case.</summary>
    public bool NamesFile { get; init; } = true;

    /// <summary>Whether what is changed was refused to begin with, for what it names is not there.</summary>
    public bool RefusesAll { get; init; }

    /// <summary>Whether it changes what the whole process shares, such as its output, so that nothing else may run beside it.</summary>
    public bool IsAlone { get; init; }

    /// <summary>Mends what must fit together, such as checksums, so that changes get past it.</summary>
    public Func<FuzzCase, FuzzCase>? Mend { get; init; }

    /// <summary>Texts worth putting into a file, beside the usual.</summary>
    public IReadOnlyList<string> Words { get; init; } = [];

    /// <summary>A reader of one folder.</summary>
    public static FuzzReader Of(string name, string reads, Func<IReadOnlyList<FuzzCase>> corpus, Action<string> read) => new(name, reads, corpus, () => read);
}

/// <summary>What no input may go beyond.</summary>
public sealed record FuzzLimits
{
    /// <summary>Bytes that may be allocated for each byte of an input.</summary>
    public const int PerByte = 2000;

    /// <summary>Characters of a message.</summary>
    public const int LongestMessage = 4000;

    /// <summary>Time of an input; what is slower is tried again before it counts.</summary>
    public TimeSpan Slow { get; init; } = TimeSpan.FromSeconds(3);

    /// <summary>An input that is not done by then counts as one that never ends.</summary>
    public TimeSpan Hang { get; init; } = TimeSpan.FromSeconds(60);

    /// <summary>Memory of the process that an input may need at once, beside what it may allocate.</summary>
    public long Resident { get; init; } = 256L << 20;

    /// <summary>Whether threads beside the reader's count; not where others work in the same process.</summary>
    public bool CountAllThreads { get; init; } = true;
}
