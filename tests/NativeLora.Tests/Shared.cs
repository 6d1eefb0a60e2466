namespace NativeLora.Tests;

/// <summary>Finds the folder of reference files: <c>NATIVELORA_SHARED</c>, else <c>../shared</c> beside the repository.</summary>
public static class Shared
{
    public static string? Root { get; } = Find();

    public static string Path(params string[] parts) =>
        System.IO.Path.Combine([Root ?? throw new InvalidOperationException("no shared folder"), .. parts]);

    private static string? Find()
    {
        if (Environment.GetEnvironmentVariable("NATIVELORA_SHARED") is { Length: > 0 } named)
            return Directory.Exists(named) ? System.IO.Path.GetFullPath(named) : null;
        for (var at = new DirectoryInfo(AppContext.BaseDirectory); at is not null; at = at.Parent)
        {
            if (!File.Exists(System.IO.Path.Combine(at.FullName, "NativeLora.sln")))
                continue;
            var beside = System.IO.Path.Combine(at.FullName, "..", "shared");
            return Directory.Exists(beside) ? System.IO.Path.GetFullPath(beside) : null;
        }
        return null;
    }
}

/// <summary>A fact that needs the reference files; without them it is skipped and says so.</summary>
[AttributeUsage(AttributeTargets.Method)]
public sealed class SharedFactAttribute : FactAttribute
{
    public SharedFactAttribute()
    {
        if (Shared.Root is null)
            Skip = "the reference files are not here (set NATIVELORA_SHARED)";
    }
}

/// <summary>A theory that needs the reference files; without them it is skipped and says so.</summary>
[AttributeUsage(AttributeTargets.Method)]
public sealed class SharedTheoryAttribute : TheoryAttribute
{
    public SharedTheoryAttribute()
    {
        if (Shared.Root is null)
            Skip = "the reference files are not here (set NATIVELORA_SHARED)";
    }
}
