using System.Diagnostics;

namespace NativeLora.Tests.Training;

/// <summary>A fact that needs Open MPI; without it it is skipped and says so.</summary>
[AttributeUsage(AttributeTargets.Method)]
public sealed class MpiFactAttribute : FactAttribute
{
    public MpiFactAttribute() => Skip = Mpi.Absent;
}

/// <summary>A fact that needs Open MPI, and network namespaces: root and iproute2.</summary>
[AttributeUsage(AttributeTargets.Method)]
public sealed class NamespaceFactAttribute : FactAttribute
{
    public NamespaceFactAttribute() => Skip = Mpi.Absent ?? Mpi.NoNamespaces;
}

internal static class Mpi
{
    public static string? Absent { get; } = Ran("mpirun", "--version") ? null : "Open MPI is not here (no mpirun)";

    public static string? NoNamespaces { get; } = Find();

    private static string? Find()
    {
        if (!OperatingSystem.IsLinux() || Environment.UserName != "root")
            return "network namespaces need root";
        var name = $"nl-probe-{Environment.ProcessId}";
        if (!Ran("ip", "netns", "add", name))
            return "no network namespaces here (ip netns)";
        Ran("ip", "netns", "del", name);
        return null;
    }

    private static bool Ran(string program, params string[] arguments)
    {
        try
        {
            var start = new ProcessStartInfo(program) { RedirectStandardOutput = true, RedirectStandardError = true };
            foreach (var argument in arguments)
                start.ArgumentList.Add(argument);
            using var process = Process.Start(start)!;
            process.StandardOutput.ReadToEnd();
            process.WaitForExit();
            return process.ExitCode == 0;
        }
        catch (System.ComponentModel.Win32Exception)
        {
            return false;
        }
    }
}
