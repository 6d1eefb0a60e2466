namespace NativeLora.Tests.Hosting;

/// <summary>Files of the repository that the tests were built in.</summary>
internal static class Repository
{
    public static string File(params string[] parts)
    {
        for (var at = new DirectoryInfo(AppContext.BaseDirectory); at is not null; at = at.Parent)
            if (System.IO.File.Exists(Path.Combine(at.FullName, "NativeLora.sln")))
                return Path.Combine([at.FullName, .. parts]);
        throw new InvalidOperationException("the tests do not run within the repository");
    }
}
