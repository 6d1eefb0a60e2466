using NativeLora;
using NativeLora.Sample.Web;

try
{
    await using var app = Service.Build(args);
    await app.RunAsync();
    return 0;
}
catch (InputException error)
{
    Console.Error.WriteLine(error.Message);
    return 2;
}
catch (Exception error) when (error is RunException or IOException)
{
    Console.Error.WriteLine(error.Message);
    return 1;
}
