using NativeLora.Sample.Web;

namespace NativeLora.Tests.Samples;

/// <summary>What the service says of settings that it cannot be started with.</summary>
public sealed class SettingsTests
{
    [Theory]
    [InlineData("nothing to serve")]
    [InlineData("Sessions is \"0\"", "--Sessions=0", "--Model=x")]
    [InlineData("QueueLength is \"-5\"", "--QueueLength=-5", "--Model=x")]
    [InlineData("RequestSeconds is \"soon\"", "--RequestSeconds=soon", "--Model=x")]
    [InlineData("no such folder of adapters", "--Model=/nowhere", "--Adapters=/nowhere/adapters")]
    [InlineData("/nowhere", "--Model=/nowhere")]
    public void A_wrong_setting_is_said(string says, params string[] args)
    {
        var error = Assert.Throws<InputException>(() => Service.Build(args));
        Assert.Contains(says, error.Message);
        Assert.DoesNotContain('\n', error.Message);
    }
}
